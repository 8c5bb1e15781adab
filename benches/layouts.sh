#!/usr/bin/env bash
# Links each benchmark in seven layouts, in which the functions lie in another order: `benches/layouts.sh FOLDER`.
#
#   AFTER_LAYOUTS=FOLDER cargo bench --all-features     measures with one of them in each process
#
# Where the code lies moves a figure by as much as a tenth, and each change of the crate moves the code: a figure of one
# layout says nothing of a change that is worth less. The linker must know `--shuffle-sections`: `rust-lld` does, which
# rustc takes by itself on Linux on x86-64.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:?where to put the programs}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

for bench in idle tasks floor size memory threads features; do
    for layout in 1 2 3 4 5 6 7; do
        program=$(cargo rustc --profile bench --bench "$bench" --all-features --locked --message-format=json -- \
            -C link-arg=-Wl,--shuffle-sections='.text*'="$layout" 2>"$folder/log" |
            grep "\"name\":\"$bench\"" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p') || true
        [ -x "$program" ] || { cat "$folder/log" >&2; exit 1; }
        cp "$program" "$folder/$bench.$layout"
    done
done
rm "$folder/log"
