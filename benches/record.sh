#!/usr/bin/env bash
# Runs all benchmarks, stores their results in docs/dev/results, puts their tables into docs/dev/benchmarks.md, and draws the
# charts again.
#
# A table stands there between `<!-- NAME -->` and `<!-- /NAME -->`, where NAME is the benchmark's. What the text around
# them says of the figures is not rewritten: read it again. On a busy machine the figures are worth less; the load is a
# column of the results.
set -euo pipefail
cd "$(dirname "$0")/.."

results=docs/dev/results
mkdir -p "$results"
AFTER_RESULTS=$results cargo bench --all-features --locked

page=docs/dev/benchmarks.md
for tables in "$results"/*.md; do
    name=$(basename "$tables" .md)
    grep -q "^<!-- $name -->$" "$page" || { echo "$page has no place for the tables of $name" >&2; exit 1; }
    awk -v name="$name" -v tables="$tables" '
        $0 == "<!-- /" name " -->" { within = 0 }
        !within { print }
        $0 == "<!-- " name " -->" {
            within = 1
            print ""
            while ((getline line < tables) > 0) { print line; blank = line == "" }
            if (!blank) print ""
        }' "$page" >"$page.new"
    mv "$page.new" "$page"
    rm "$tables"
done
cargo run --quiet --locked --package charts
