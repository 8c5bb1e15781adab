#!/usr/bin/env bash
# Takes the README's pictures of the page anew, into docs/. Needs Debian's packages chromium, chromium-driver, pngquant.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo run --quiet -p shop --example screenshots
# A page has few colours: a quarter of the bytes.
pngquant --force --ext .png --speed 1 --strip 128 docs/shop-*.png
