#!/usr/bin/env bash
# The tests in which memory could be misused, under AddressSanitizer with its leak detector: `tests/sanitizers.sh`, or
# `tests/sanitizers.sh interleavings model` for some programs alone.
#
# There is no unsafe code in this crate. What is looked for is unsound use of that in its dependencies (scoped-tls-hkt,
# pin-project-lite, async-task, the runtimes), and memory that nobody frees.
#
# `RUSTC_BOOTSTRAP=1` lets the stable compiler take the flag, which is unstable; nothing else is. Linux on x86-64 only.
# Builds go to a folder of their own, `target/sanitizers`, because the flag changes every crate.
#
# ThreadSanitizer is not here: it needs a standard library that is instrumented too (`-Zbuild-std` and the `rust-src`
# component, which a plain toolchain lacks). Without, it reports races in a correct `Mutex` shared through an `Arc`. Races
# are looked for with loom instead: see docs/dev/reliability.md.
set -euo pipefail
cd "$(dirname "$0")/.."

programs=("$@")
if [ ${#programs[@]} -eq 0 ]; then
    # Left out: what measures or starts servers, and `spawners`, which leaks one on purpose.
    programs=(account interleavings interleavings_panics model phases runtimes testing)
fi

target="${CARGO_TARGET_DIR:-target}/sanitizers"
mkdir -p "$target"

# Known leaks: payloads whose destructors panic, which nobody can drop; what tests forget on purpose; batches that
# tests leave in their own spawners.
suppressions="$(cd "$target" && pwd)/leaks.txt"
cat >"$suppressions" <<'EOF'
leak:forget_payload
leak:forgotten
leak:begin_panic*Bomb
leak:timeouts::each_timeout_is_reported_once
leak:that_forgets_its_batches
leak:roster::what_joined_a_batch_that_was_not_polled_since_is_named
leak:open::no_room_is_lost_however_it_ends
leak:open::one_that_has_deferred_nothing_is_ready
leak:open::one_that_stops_waiting_gives_up_its_place
EOF

export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address"
export CARGO_TARGET_DIR="$target"
export LSAN_OPTIONS="suppressions=$suppressions:print_suppressions=0"

tests=()
for program in "${programs[@]}"; do
    tests+=(--test "$program")
done
# With `--target`, so that build scripts and macros are built without.
cargo test --target x86_64-unknown-linux-gnu --all-features --locked "${tests[@]}"
