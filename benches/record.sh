#!/usr/bin/env bash
# Runs all benchmarks, stores their results in docs/dev/results, puts their tables into docs/dev/benchmarks.md, and draws the
# charts again.
#
# What the text around the tables says of the figures is not rewritten: read it again. On a busy machine the figures are
# worth less; the load is a column of the results.
set -euo pipefail
cd "$(dirname "$0")/.."

results=docs/dev/results
mkdir -p "$results"
layouts=$(mktemp -d)
trap 'rm -r "$layouts"' EXIT
benches/layouts.sh "$layouts"
AFTER_LAYOUTS=$layouts AFTER_RESULTS=$results cargo bench --all-features --locked

for tables in "$results"/*.md; do
    benches/fill.sh "$(basename "$tables" .md)" "$tables"
    rm "$tables"
done
cargo run --quiet --locked --package charts
