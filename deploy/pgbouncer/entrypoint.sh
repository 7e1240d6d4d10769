#!/bin/sh
# Write PgBouncer's configuration from the environment, then become PgBouncer.
# Nothing is written into the image: CONFIG_DIR is a file system in memory.
set -eu

: "${DB_HOST:?name the PostgreSQL server}"
: "${DB_NAME:?name the database}"
: "${DB_USER:?name the role of the services}"
: "${DB_PASSWORD:?give the password of DB_USER}"
: "${STATS_USER:?name the role that may ask SHOW POOLS}"
: "${STATS_PASSWORD:?give the password of STATS_USER}"
CONFIG_DIR=${CONFIG_DIR:-/run/pgbouncer}

# a line break would end the value and begin a setting of its own
for value in "$DB_HOST" "$DB_NAME" "$DB_USER" "$DB_PASSWORD" "$STATS_USER" "$STATS_PASSWORD"; do
  case $value in
  *'
'*)
    echo "entrypoint: a setting must not contain a line break" >&2
    exit 2
    ;;
  esac
done

# userlist.txt writes a quote within quotes as two
quoted() { printf '"%s"' "$(printf '%s' "$1" | sed 's/"/""/g')"; }

umask 077
{
  printf '%s %s\n' "$(quoted "$DB_USER")" "$(quoted "$DB_PASSWORD")"
  printf '%s %s\n' "$(quoted "$STATS_USER")" "$(quoted "$STATS_PASSWORD")"
} >"$CONFIG_DIR/userlist.txt"

cat >"$CONFIG_DIR/pgbouncer.ini" <<EOF
[databases]
$DB_NAME = host=$DB_HOST port=${DB_PORT:-5432} dbname=$DB_NAME

[pgbouncer]
listen_addr = ${LISTEN_ADDR:-*}
listen_port = ${LISTEN_PORT:-6432}
unix_socket_dir =
; several processes may listen on one port: each is one thread
so_reuseport = ${SO_REUSEPORT:-0}
auth_type = scram-sha-256
auth_file = $CONFIG_DIR/userlist.txt
stats_users = $STATS_USER
pool_mode = ${POOL_MODE:-transaction}
max_client_conn = ${MAX_CLIENT_CONN:-1000}
default_pool_size = ${DEFAULT_POOL_SIZE:-20}
; a transaction that finds no server connection fails, and is tried again, instead of hanging for 120 s
query_wait_timeout = ${QUERY_WAIT_TIMEOUT:-20}
; after a restart of PostgreSQL, try again at once and not after 15 s
server_login_retry = 1
; one line per connection would be the log's most frequent
log_connections = 0
log_disconnections = 0
EOF

exec "${PGBOUNCER:-/usr/sbin/pgbouncer}" "$CONFIG_DIR/pgbouncer.ini"
