#!/usr/bin/env bash
# Run $EXPERIMENT with $PYTHON, leave its report in $OUT, and tell GitHub where there is one.
# Ends in 0 for every verdict (the caller decides which of them fails), else in the run's own exit code.
set -uo pipefail
: "${EXPERIMENT:?}" "${PYTHON:?}" "${OUT:?}"
mkdir -p "$OUT"
code=0
"$PYTHON" -m experiments run "$EXPERIMENT" || code=$?
case $code in 0|1|3|4) ;; *) exit "$code" ;; esac
"$PYTHON" -m analysis report --json "$OUT/report.json" --markdown "$OUT/report.md" --html "$OUT/report.html" \
  --junit "$OUT/junit.xml" --csv "$OUT/tally.csv" --annotations "$OUT/annotations.txt"
test $? -eq "$code" || exit 5
cat "$OUT/annotations.txt"
if [ -n "${GITHUB_STEP_SUMMARY:-}" ]; then cat "$OUT/report.md" >> "$GITHUB_STEP_SUMMARY"; fi
if [ -n "${GITHUB_OUTPUT:-}" ]; then
  "$PYTHON" -c 'import json, sys; print("verdict=" + json.load(open(sys.argv[1]))["verdict"]["word"])' \
    "$OUT/report.json" >> "$GITHUB_OUTPUT"
  echo "exit-code=$code" >> "$GITHUB_OUTPUT"
fi
exit 0
