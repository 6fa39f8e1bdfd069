#!/bin/bash
# Usage: tools/check.sh BIN
# Runs every check even after one has failed: a person wants the whole list.
set -uo pipefail

bin=$1
cd "$(dirname "$0")/.."
failed=()

check() {
    local name=$1
    shift
    echo "== $name"
    "$@" || failed+=("$name")
}

lock_names_no_index() {
    if grep -nE '://|^ *--(index|extra-index|find-links|trusted-host)' requirements.lock; then
        echo "requirements.lock names where packages come from; make it anew with: make lock" >&2
        return 1
    fi
}

only_settings_reads_the_environment() {
    if grep -rnE 'os\.(environ|getenv|putenv)' strata --include '*.py' | grep -v '^strata/platform/settings\.py:'; then
        echo "the environment is read in strata/platform/settings.py alone" >&2
        return 1
    fi
}

check "ruff" "$bin/ruff" check .
check "ruff format" "$bin/ruff" format --check .
check "mypy" "$bin/mypy"
check "import-linter" "$bin/lint-imports"
check "vulture" "$bin/vulture"
check "tier lint" "$bin/python" -m tools.lint_tier
check "revisions" "$bin/python" -m tools.lint_revisions
check "lock names no index" lock_names_no_index
check "environment is read in one place" only_settings_reads_the_environment

if [ ${#failed[@]} -gt 0 ]; then
    echo "make check: failed: ${failed[*]}" >&2
    exit 1
fi
echo "make check: all passed"
