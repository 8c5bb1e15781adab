#!/usr/bin/env bash
# An axum service under load on loopback, its work spawned, awaited and deferred: what a request costs, and what its
# client waits for.
#
#   benches/http/run.sh           about 18 minutes on a quiet machine of two cores; writes docs/dev/results/http.csv,
#                                 draws docs/dev/latency.svg, and puts the tables into docs/dev/benchmarks.md
#   benches/http/run.sh --quick   seconds: checks that each variant answers and that no task is lost; keeps no figure
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v wrk >/dev/null; then
    apt-get update -qq && apt-get install -y -qq wrk
fi

cargo build --release --locked --package http-load
program=${CARGO_TARGET_DIR:-target}/release/http-load

case ${1:-} in
--quick)
    kept=$(mktemp)
    trap 'rm -f "$kept"' EXIT
    "$program" record "$kept" --quick
    ;;
"")
    "$program" record docs/dev/results/http.csv
    cargo run --quiet --locked --package charts
    tables=$(mktemp)
    trap 'rm -f "$tables"' EXIT
    "$program" table docs/dev/results/http.csv | tee "$tables"
    benches/fill.sh "http tables" "$tables"
    ;;
*)
    echo "unknown: $1" >&2
    exit 2
    ;;
esac
