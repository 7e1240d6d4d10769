#!/bin/sh
# Name this replica, then become the program. Replicas of docker compose share one environment, but
# each has a container id of its own: its first digits, as a number, follow KAFKA_CLIENT_ID, as in
# payment-service-1. So Kafka, PostgreSQL and `monitor pools` can tell replicas apart.
set -eu

case ${HOSTNAME:-} in
'' | *[!0-9a-f]*) ;; # no container id: whoever chose the host's name chose the client's, too
*)
  if [ -n "${KAFKA_CLIENT_ID:-}" ]; then
    digits=$(printf '%.6s' "$HOSTNAME")
    export KAFKA_CLIENT_ID="$KAFKA_CLIENT_ID-$((0x$digits))"
  fi
  ;;
esac

exec "$@"
