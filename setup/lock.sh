#!/bin/sh
# Rewrites requirements.lock from pyproject.toml for every supported Python. Needs `uv`; the index is the machine's.
set -eu
cd "$(dirname "$0")/.."
exec uv pip compile pyproject.toml setup/build.in --all-extras --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -q -o requirements.lock
