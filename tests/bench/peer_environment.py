"""The virtual environment of the programs we compare with: .venv-bench, from a lock with hashes, made once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.machine import ROOT

_LOCK = Path(__file__).with_name("requirements-peers.lock")
_VENV = ROOT / ".venv-bench"
_SHOWN = ("trytond", "trytond-stock", "django", "django-tenants", "psycopg", "gunicorn", "unleashclient", "growthbook")


class PeerEnvironment:
    def __init__(self) -> None:
        """Installs, if the lock has changed since."""
        stamp = _VENV / ".installed"
        digest = hashlib.sha256(_LOCK.read_bytes()).hexdigest()
        if stamp.is_file() and stamp.read_text() == digest:
            return
        print(f"Installing what is compared with into {_VENV.name} (once)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", _VENV], check=True)
        pip = [self.program("python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "-r", _LOCK], check=True)
        stamp.write_text(digest)

    def program(self, name: str) -> str:
        return str(_VENV / "bin" / name)

    def run(self, command: Sequence[str], environment: dict[str, str]) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            message = f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
            raise RuntimeError(message)
        return done.stdout

    def versions(self) -> dict[str, str]:
        code = "import json, sys; from importlib.metadata import version; print(json.dumps({n: version(n) for n in sys.argv[1:]}))"
        found: dict[str, str] = json.loads(self.run([self.program("python"), "-c", code, *_SHOWN], {}))
        return found
