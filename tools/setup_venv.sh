#!/bin/bash
# Usage: tools/setup_venv.sh VENV STAMP
set -euo pipefail

venv=$1
stamp=$2
cd "$(dirname "$0")/.."

# The project is installed editable: of pyproject.toml only [project] matters, and the lock pins what it asks for.
wanted=$(cat requirements.lock <(sed -n '1,/^\[dependency-groups\]/p' pyproject.toml) | sha256sum | cut -d' ' -f1)
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

# Two makes at once would install over each other. (flock is not everywhere; without it one has to wait oneself.)
exec 9<Makefile
if command -v flock >/dev/null; then flock 9; fi
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

if ! "$venv/bin/python" -c 'import sys' 2>/dev/null; then
    python=$(tools/find_python.sh)
    echo "Making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi
echo "Installing the packages that requirements.lock pins"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
echo "$wanted" >"$stamp"
