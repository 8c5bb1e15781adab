#!/usr/bin/env bash
# The tests on all three stores, the example, and the rig. Starts Postgres and Redis by itself, and stops them.
#
#   integrations/apalis/test.sh [seconds of the rig on each store]
set -euo pipefail
cd "$(dirname "$0")/../.."

services=integrations/apalis/services.sh
eval "$("$services" start)"
trap '"$services" stop' EXIT

# The rig and the example are unoptimized: what they check does not hang on speed. All targets in one invocation, so that the
# features of what they share, and so what is built, are one set.
members=(-p after-apalis -p durable -p durable-rig --all-features --locked)
cargo build "${members[@]}" --all-targets
cargo test "${members[@]}"
cargo check -p after-apalis --all-targets --locked
programs="${CARGO_TARGET_DIR:-target}/debug"
"$programs/durable"
"$programs/durable-rig" --store all --seconds "${1:-20}"
