#!/bin/sh
# The README's picture: the first screen of a report, drawn by a headless Chromium.
#   sh docs/picture.sh runs/digits/TIME-ID/report.html
set -eu
exec "${CHROMIUM:-chromium}" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
  --disable-background-networking --disable-component-update --disable-sync --user-data-dir="$(mktemp -d)" \
  --hide-scrollbars --window-size=1280,860 --virtual-time-budget=8000 --screenshot="$(dirname "$0")/report.png" \
  "file://$(realpath "$1")"
