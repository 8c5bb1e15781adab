#!/usr/bin/env bash
# The crate on `wasm32-unknown-unknown`, and the example under workerd. All that is loaded and built goes to `target/wasm`.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/wasm
example=examples/workers

# Without its scripts, which do nothing that is needed: the package is a binary.
mkdir -p "$target/npm"
if ! cmp -s "$example/package-lock.json" "$target/npm/installed.json"; then
    cp "$example"/package{,-lock}.json "$target/npm"
    npm ci --silent --ignore-scripts --no-audit --no-fund --prefix "$target/npm"
    cp "$example/package-lock.json" "$target/npm/installed.json"
fi

(
    settings=$("$example/toolchain.sh" "$target/toolchain")
    eval "$settings"
    export CARGO_TARGET_DIR=$target
    build() {
        cargo build --locked --lib -Zbuild-std=std,panic_abort --target wasm32-unknown-unknown "$@"
    }
    build --manifest-path "$example/Cargo.toml"
    # What a program has that changes nothing, and what it has at the least.
    build
    build --no-default-features
)

# With the compiler that everything else is built with.
export WORKER_WASM=$target/wasm32-unknown-unknown/debug/workers_example.wasm
WORKERD=$(echo "$target"/npm/node_modules/@cloudflare/workerd-linux-*/bin/workerd)
export WORKERD CARGO_TARGET_DIR=$target
[ -x "$WORKERD" ] || { echo "npm has no workerd for this machine: $WORKERD" >&2; exit 1; }
cargo test --manifest-path "$example/rig/Cargo.toml" --locked
