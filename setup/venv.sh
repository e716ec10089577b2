#!/bin/sh
# Makes .venv from requirements.lock (hashes required) and puts the project into it, editable. Quick when
# nothing changed: two stamps hold the content that was installed.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))') || {
  echo "sekisho needs Python 3.11 or newer; $python is ${version:-missing}." >&2
  exit 3
}
sum() { cat "$@" 2>/dev/null | sha256sum | cut -d' ' -f1; }
is() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }

[ -x .venv/bin/python ] && [ "$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$version" ] || {
  rm -rf .venv
  "$python" -m venv .venv
}
deps="$version $(sum requirements.lock)"
is .venv/.sekisho-deps "$deps" || {
  echo "Installing locked Python packages"
  .venv/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
  echo "$deps" >.venv/.sekisho-deps
}
project="$PWD $(sum pyproject.toml inspect/build_gate.py inspect/sekisho/inspect/gate.c inspect/sekisho/inspect/gate.h)"
is .venv/.sekisho-project "$project" && [ -e inspect/sekisho/inspect/_gate.so ] || {
  echo "Building and installing sekisho"
  .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
  echo "$project" >.venv/.sekisho-project
}
