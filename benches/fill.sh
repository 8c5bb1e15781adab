#!/usr/bin/env bash
# Puts tables into docs/dev/benchmarks.md, between `<!-- NAME -->` and `<!-- end of NAME -->`: benches/fill.sh NAME FILE
#
# What the text around them says of the figures is not rewritten: read it again.
set -euo pipefail
name=$1 tables=$(realpath "$2")
cd "$(dirname "$0")/.."
page=docs/dev/benchmarks.md

for comment in "<!-- $name -->" "<!-- end of $name -->"; do
    grep -qxF "$comment" "$page" || { echo "$page has no line $comment" >&2; exit 1; }
done
filled=$(mktemp)
trap 'rm -f "$filled"' EXIT
awk -v name="$name" -v tables="$tables" '
    $0 == "<!-- end of " name " -->" { within = 0 }
    !within { print }
    $0 == "<!-- " name " -->" {
        within = 1
        print ""
        while ((getline line < tables) > 0) { print line; blank = line == "" }
        if (!blank) print ""
    }' "$page" >"$filled"
# In place: a new file would have the rights of a temporary one.
cat "$filled" >"$page"
