#!/bin/sh
# Prints the first interpreter that is CPython 3.11 or newer and can make virtual environments.
# 3.11 goes first: it is the version the lock is tested with. A pyenv shim may exist and not work, so each is tried.
set -eu

seen=""
for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 /usr/bin/python3.11 /usr/bin/python3.12 \
    /usr/bin/python3.13 /usr/bin/python3; do
    [ -n "$candidate" ] || continue
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    seen="$candidate"
    "$candidate" -c 'import ensurepip, venv' 2>/dev/null || continue
    echo "$candidate"
    exit 0
done

if [ -n "$seen" ]; then
    echo "$seen cannot make virtual environments: install its venv package (Debian: apt-get install python3-venv)." >&2
else
    echo "Strata needs Python 3.11 or newer and found none: install one (Debian 12: apt-get install python3-venv)," >&2
    echo "or name it: make setup PYTHON=/path/to/python3.12" >&2
fi
exit 1
