#!/usr/bin/env bash
# Counts the instructions of the hot paths under callgrind and compares them with benches/instructions.txt.
#
#   benches/instructions.sh            fails if a count has risen by more than 2 %
#   benches/instructions.sh --accept   stores the counts of now
#
# Instructions, not seconds: the same on a loaded machine. Another compiler or C library gives others, so store them
# again, in a commit of its own, when one of these changes.
set -euo pipefail
cd "$(dirname "$0")/.."

stored=benches/instructions.txt
tolerated=2 # per cent
accept=${1:-}
counted=$(mktemp)
trap 'rm -f "$counted"' EXIT

command -v valgrind >/dev/null || { echo "valgrind is missing: install your system's package" >&2; exit 1; }

# The program of this name, built; with what else is given, a feature.
built() {
    local program
    program=$(cargo bench --bench "$1" "${@:2}" --no-run --message-format=json 2>/dev/null |
        grep "\"name\":\"$1\"" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
    [ -x "$program" ] || { echo "the scenarios were not built: run \`cargo bench --bench $* --no-run\`" >&2; exit 1; }
    echo "$program"
}
plain=$(built instructions)
woken=$(built instructions_woken)
layer=$(built instructions_layer --features tower)

# Instructions of the whole process for so many repetitions, on a heap that is moved by so many bytes.
whole() {
    local program=$plain
    case $1 in
        layer_*) program=$layer ;;
        *-*) program=$woken ;;
    esac
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" "$3" 2>&1 |
        sed -n 's/.*Collected : //p'
}

for scenario in nothing_deferred pending_poll one_task three_tasks eight_tasks \
    after-staggered-1 after-staggered-3 after-staggered-8 \
    layer_nothing layer_one_task layer_three_tasks; do
    # The least of several layouts of the heap: the allocator's own work is in the figure, and luck is not.
    for padding in 0 24 88 200 424 1032 2056 4104; do
        few=$(whole "$scenario" 1000 "$padding")
        many=$(whole "$scenario" 5000 "$padding")
        awk -v few="$few" -v many="$many" 'BEGIN { printf "%.1f\n", (many - few) / 4000 }'
        case $scenario in nothing_deferred | pending_poll) break ;; esac # these allocate nothing
    done | sort -n | head -n 1 | sed "s/^/$scenario /" >>"$counted"
done

if [ "$accept" = --accept ]; then
    cp "$counted" "$stored"
    cat "$stored"
    exit 0
fi

awk -v tolerated="$tolerated" '
    NR == FNR { stored[$1] = $2; next }
    {
        if (!($1 in stored)) { printf "%-18s %9.1f  not stored\n", $1, $2; failed = 1; next }
        change = ($2 / stored[$1] - 1) * 100
        printf "%-18s %9.1f  stored %9.1f  %+6.2f %%\n", $1, $2, stored[$1], change
        if (change > tolerated) { failed = 1; print "  has risen by more than " tolerated " %" }
    }
    END {
        if (failed) {
            print "If the rise is wanted, say why in the commit and store it: benches/instructions.sh --accept"
            exit 1
        }
    }' "$stored" "$counted" || { .ci/compiler; exit 1; }
