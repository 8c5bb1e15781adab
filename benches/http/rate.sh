#!/usr/bin/env bash
# The service of run.sh at fixed rates: 30, 60 and 85 % of what the server can do with three spawns in its handler.
# The server has a core to itself, and so have its clients. A latency counts from the moment at which the request was due.
#
#   benches/http/rate.sh           about 15 minutes on a quiet machine of two cores; writes docs/dev/results/rate.csv,
#                                  draws docs/dev/rate.svg, and puts the tables into docs/dev/benchmarks.md
#   benches/http/rate.sh --quick   seconds: checks that each variant answers, that no request and no task is lost, and
#                                  that the generator sees a stall; keeps no figure
set -euo pipefail
cd "$(dirname "$0")/../.."

cargo build --release --locked --package http-load
program=${CARGO_TARGET_DIR:-target}/release/http-load

case ${1:-} in
--quick)
    kept=$(mktemp)
    trap 'rm -f "$kept"' EXIT
    "$program" rate "$kept" --quick
    ;;
"")
    # It measures the capacity.
    if ! command -v wrk >/dev/null; then
        apt-get update -qq && apt-get install -y -qq wrk
    fi
    "$program" rate docs/dev/results/rate.csv
    cargo run --quiet --locked --package charts
    tables=$(mktemp)
    trap 'rm -f "$tables"' EXIT
    "$program" rate-table docs/dev/results/rate.csv | tee "$tables"
    benches/fill.sh "rate tables" "$tables"
    ;;
*)
    echo "unknown: $1" >&2
    exit 2
    ;;
esac
