#!/usr/bin/env bash
# Next.js beside axum with the layer: the same routes, a core for the server and one for its clients, on loopback.
# Five runs of each in turns: requests a second with no task and with three, the latency at a rate that both can stand,
# and what a client waits for 100 ms of work that leaves 80 ms behind.
#
#   benches/next/run.sh           about 5 minutes, and the installation; writes docs/dev/results/next.csv, prints the table,
#                                 and puts it into docs/dev/benchmarks.md
#   benches/next/run.sh --quick   half a minute: checks that both answer and that no task is lost; keeps no figure
set -euo pipefail
cd "$(dirname "$0")"
export NEXT_TELEMETRY_DISABLED=1

install() {
    apt-get update -qq && apt-get install -y -qq "$@"
}
command -v wrk >/dev/null || install wrk
command -v npm >/dev/null || install nodejs npm

# What the `next` of package.json needs. Debian's may be older: then npm's package `node` brings one.
new_enough() {
    node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a == 20 && b >= 9) ? 0 : 1)'
}
if ! new_enough; then
    npm install --silent --no-audit --no-fund --prefix .node node@24
    PATH=$PWD/.node/node_modules/node/bin:$PATH
    new_enough
fi

[[ -d node_modules/next ]] || npm ci --silent --no-audit --no-fund
[[ .next/standalone/server.js -nt package-lock.json && -z $(find app work.js next.config.mjs -newer .next/standalone/server.js) ]] ||
    node_modules/.bin/next build

cd ../..
cargo build --release --locked --package http-load
program=${CARGO_TARGET_DIR:-target}/release/http-load
server=benches/next/.next/standalone

case ${1:-} in
--quick)
    kept=$(mktemp)
    trap 'rm -f "$kept"' EXIT
    "$program" next "$server" "$kept" --quick
    ;;
"")
    "$program" next "$server" docs/dev/results/next.csv
    table=$(mktemp)
    trap 'rm -f "$table"' EXIT
    "$program" next-table docs/dev/results/next.csv | tee "$table"
    benches/fill.sh "next table" "$table"
    ;;
*)
    echo "unknown: $1" >&2
    exit 2
    ;;
esac
