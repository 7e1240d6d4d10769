#!/bin/sh
# Create the topics that are missing and list what is there; no topic that exists is changed.
#
#   scripts/create-topics.sh                    on KAFKA_BROKERS, else 127.0.0.1:9092
#   scripts/create-topics.sh HOST:PORT 3        on these brokers, with three replicas of each
#
# Names, partitions and settings are declared in order_services/domain/topics.py and nowhere else.
set -eu
if [ "$#" -gt 2 ] || [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
  echo "usage: $0 [HOST:PORT [REPLICATION_FACTOR]]" >&2
  exit 2
fi
if [ -n "${1:-}" ]; then
  export KAFKA_BROKERS="$1"
fi
here=$(dirname "$0")/..
if [ -x "$here/.venv/bin/order-services" ]; then
  program=$here/.venv/bin/order-services
elif program=$(command -v order-services); then
  :
else
  echo "create-topics: order-services is not installed: say 'make run' once, or with Docker" >&2
  echo "    docker compose run --rm topics" >&2
  exit 2
fi
"$program" topics create ${2:+--replication-factor "$2"}
"$program" topics list
