#!/usr/bin/env bash
# Postgres and Redis for the tests, the rig and the measurements: unprivileged, on free ports, in a temporary directory.
#
#   eval "$(integrations/apalis/services.sh start)"     sets AFTER_POSTGRES_URL, AFTER_REDIS_URL and AFTER_SERVICES
#   integrations/apalis/services.sh stop                stops what AFTER_SERVICES names
#
# Installs what is missing (Debian, as root). Everything but the two exports goes to standard error.
set -euo pipefail

say() { printf 'services: %s\n' "$*" >&2; }

install() {
    say "installing $*"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"; } >&2
}

# The newest version's, wherever Debian put it.
postgres_bin() {
    local bin
    for bin in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V -r); do
        [ -x "$bin/initdb" ] && { echo "$bin"; return; }
    done
    command -v initdb >/dev/null && dirname "$(command -v initdb)"
}

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 20000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

# Postgres refuses to be root.
as() {
    local user="$1"
    shift
    if [ "$(id -u)" = 0 ]; then runuser -u "$user" -- "$@"; else "$@"; fi
}

# until WHAT LOG COMMAND..: tries for 30 seconds.
until_answers() {
    local what="$1" log="$2" tries
    shift 2
    for tries in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    say "$what gave no answer in 30 s:"
    tail -20 "$log" >&2
    return 1
}

start() {
    local dir bin user pg_port redis_port
    [ -n "$(postgres_bin || true)" ] || install postgresql
    command -v redis-server >/dev/null || install redis-server
    bin="$(postgres_bin)"
    user=postgres
    [ "$(id -u)" = 0 ] || user="$(id -un)"
    id "$user" >/dev/null

    dir="$(mktemp -d /tmp/after-services.XXXXXX)"
    chmod 755 "$dir"
    mkdir "$dir/postgres" "$dir/redis"
    [ "$(id -u)" = 0 ] && chown "$user" "$dir/postgres" "$dir/redis"
    # A start that fails leaves nothing behind.
    trap 'AFTER_SERVICES="$dir" stop' ERR

    pg_port="$(free_port)"
    as "$user" "$bin/initdb" -D "$dir/postgres/data" -U after --auth=trust -E UTF8 >"$dir/initdb.log" 2>&1 \
        || { tail -20 "$dir/initdb.log" >&2; false; }
    as "$user" "$bin/pg_ctl" -D "$dir/postgres/data" -l "$dir/postgres/log" -w -t 30 \
        -o "-p $pg_port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir/postgres -c max_connections=200" \
        start >"$dir/pg_ctl.log" 2>&1 </dev/null || { tail -20 "$dir/postgres/log" >&2; false; }
    until_answers Postgres "$dir/postgres/log" "$bin/pg_isready" -h 127.0.0.1 -p "$pg_port"

    redis_port="$(free_port)"
    # What was pushed survives a SIGKILL of Redis, as it does in Postgres.
    as "$user" redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$dir/redis" --save '' --appendonly yes \
        --appendfsync everysec --databases 256 --daemonize yes --pidfile "$dir/redis/pid" --logfile "$dir/redis/log" >&2
    until_answers Redis "$dir/redis/log" redis-cli -p "$redis_port" ping
    trap - ERR

    say "Postgres on $pg_port, Redis on $redis_port, in $dir"
    echo "export AFTER_SERVICES='$dir'"
    echo "export AFTER_POSTGRES_URL='postgres://after@127.0.0.1:$pg_port/postgres'"
    echo "export AFTER_REDIS_URL='redis://127.0.0.1:$redis_port/'"
}

# By their process ids, as they wrote them down.
stop() {
    local dir="${AFTER_SERVICES:-}" pid tries
    case "$dir" in
        /tmp/after-services.*) ;;
        *) say "AFTER_SERVICES names nothing of this script"; return 1 ;;
    esac
    for file in "$dir/postgres/data/postmaster.pid" "$dir/redis/pid"; do
        [ -f "$file" ] || continue
        pid="$(head -1 "$file")"
        # SIGINT: Postgres' fast shutdown; Redis takes it as SIGTERM.
        kill -INT "$pid" 2>/dev/null || continue
        for tries in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -0 "$pid" 2>/dev/null && kill -KILL "$pid" || true
    done
    rm -rf "$dir"
    say "stopped"
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    *) say "start or stop"; exit 2 ;;
esac
