#!/bin/bash
# Usage: tools/lock.sh UV [--upgrade | --upgrade-package NAME]
# The lock names no index: hashes say what a package is, and whoever installs says where from.
set -euo pipefail

uv=$1
shift
cd "$(dirname "$0")/.."

# --no-config and a bare environment: a mirror or find-links of this machine must not lend its hashes to the lock.
env -u UV_INDEX -u UV_INDEX_URL -u UV_DEFAULT_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
    "$uv" pip compile pyproject.toml --group dev --output-file requirements.lock --quiet "$@" \
    --universal --python-version 3.11 --generate-hashes --no-config \
    --no-emit-index-url --no-annotate --no-header
