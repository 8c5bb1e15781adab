#!/usr/bin/env bash
# The tests on all three stores, and the rig for a minute. Starts Postgres and Redis by itself, and stops them.
#
#   integrations/apalis/test.sh [seconds of the rig on each store]
set -euo pipefail
cd "$(dirname "$0")/../.."

services=integrations/apalis/services.sh
eval "$("$services" start)"
trap '"$services" stop' EXIT

cargo test -p after-apalis --all-features --locked
cargo test -p after-apalis --locked --no-run
# Unoptimized: what it checks does not hang on speed, and most of it is built already.
cargo run --quiet --locked -p durable-rig -- --store all --seconds "${1:-20}"
