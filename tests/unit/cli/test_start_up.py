"""What a command imports before it does anything: most of the time of one that finds nothing to do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

import strata
from strata.cli.catalogue import COMMANDS
from strata.migrations import MIGRATIONS
from strata.platform.database.revisions import RevisionChain
from strata.platform.on_demand import loaded

HEAVY = [
    "alembic",
    "hvac",
    "jinja2",
    "jwt",
    "litestar",
    "procrastinate",
    "psycopg",
    "redis",
    "requests",
    "sqlalchemy",
    "strata.app",
    "strata.inventory",
    "strata.migrator",
    "strata.runtime",
    "uvicorn",
]
CALL = re.compile(r'loaded\("([^"]+)"\)')


@pytest.mark.parametrize("words", [["--version"], ["db", "--help"], ["db", "status", "--json"], ["db", "upgrade"]])
def test_a_light_command_imports_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    """Up to its first word to a server: there is none here."""
    program = f"import json, sys; from strata.cli import run; run({words!r}); sys.stderr.write(json.dumps(sorted(sys.modules)))"
    environment = {"STRATA_DATA_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    modules = set(json.loads(ended.stderr.splitlines()[-1]))
    assert "strata.cli" in modules
    assert [name for name in HEAVY if name in modules] == []


def named_late() -> Iterator[str]:
    yield from COMMANDS.values()
    for file in Path(strata.__file__).parent.rglob("*.py"):
        yield from CALL.findall(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(set(named_late())))
def test_what_is_imported_late_is_there(name: str) -> None:
    assert callable(loaded(name)) or name.endswith(":app")


@pytest.mark.parametrize("name", ["catalog", "cell", "tenant"])
def test_the_names_of_files_tell_the_revisions(name: str) -> None:
    """A command that finds nothing to do reads these, and not Alembic."""
    known = [script.revision for script in ScriptDirectory(str(MIGRATIONS / name)).walk_revisions()]
    assert list(RevisionChain(MIGRATIONS / name).ids) == known[::-1]
