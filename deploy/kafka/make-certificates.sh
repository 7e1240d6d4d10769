#!/bin/sh
# Make a certificate for the broker of docker-compose.secure.yml, for a try on one machine: it signs
# itself, so that it is also whom to trust. With a certificate authority of your own, put its files here.
#
#   deploy/kafka/make-certificates.sh [DIRECTORY]      deploy/kafka/secrets unless it is told
set -eu
directory=${1:-$(dirname "$0")/secrets}
if [ -e "$directory/broker.pem" ]; then
  echo "make-certificates: $directory/broker.pem is there already, and was left alone" >&2
  exit 2
fi
mkdir -p "$directory"
openssl req -x509 -newkey rsa:2048 -nodes -days 365 -subj /CN=kafka \
  -addext "subjectAltName=DNS:kafka,DNS:localhost" \
  -keyout "$directory/key.pem" -out "$directory/ca.pem" 2>/dev/null
# Kafka's PEM keystore: the key first, then the certificate
cat "$directory/key.pem" "$directory/ca.pem" >"$directory/broker.pem"
rm "$directory/key.pem"
# the broker's container runs as a user of its own, and must be able to read it
chmod 0644 "$directory/broker.pem" "$directory/ca.pem"
