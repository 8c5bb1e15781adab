#!/usr/bin/env bash
# The size of an axum service of one route: without `after`, with what a service on tokio needs, and with the default
# features. Optimized as releases are by default, and stripped.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-$PWD/target}
for features in "" slim full; do
    CARGO_PROFILE_RELEASE_STRIP=true CARGO_TARGET_DIR=$target/binary \
        cargo build --quiet --release --locked -p binary --features "$features"
    bytes=$(stat -c %s "$target/binary/release/binary")
    crates=$(cargo tree --locked --quiet -p binary --features "$features" -e normal --prefix none | sed 's/ (.*//' | sort -u | wc -l)
    printf '%-5s %5d kB, %3d crates\n' "${features:-none}" $((bytes / 1000)) $((crates - 1))
done
