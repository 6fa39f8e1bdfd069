"""`strata db upgrade` and `strata db status`, as staff and as programs read them."""

from __future__ import annotations

from pathlib import Path

import pytest

import strata.cli.surveying
import strata.runtime
from tests.builders.command import Command, environment_for
from tests.builders.platform import FIRST_CELL, admin_of
from tests.builders.upgrading import release
from tests.integration.tenancy.upgrades.conftest import ADD, COLUMN, Estate


@pytest.fixture
def command(
    estate: Estate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Of a release that adds a column."""
    for name, value in environment_for(estate.platform).items():
        monkeypatch.setenv(name, value)
    migrations = release(tmp_path / "release", tenant=[ADD])
    monkeypatch.setattr(strata.runtime, "MIGRATIONS", migrations)
    monkeypatch.setattr(strata.cli.surveying, "MIGRATIONS", migrations)
    return Command(capsys)


async def test_upgrading(estate: Estate, command: Command) -> None:
    planned = await command("db", "upgrade", "--dry-run", "--canary", "2")
    assert planned.code == 0
    assert planned.out.count("canary") == 2
    done = await command("db", "upgrade", "--canary", "2", "--jobs", "2")
    assert done.code == 0, done.err
    assert "tenants 9001" in done.out
    again = await command("db", "upgrade")
    assert (again.code, again.out.strip()) == (0, "Everything is at the newest revision.")


async def test_a_failure_is_told_and_the_exit_code_says_so(estate: Estate, command: Command) -> None:
    victim = estate.schemas[0].placement.schema_name
    async with admin_of(estate.runtime, FIRST_CELL) as admin:
        await admin.execute(f'ALTER TABLE "{victim}".product ADD COLUMN {COLUMN} text')
    said = await command("db", "upgrade")
    assert said.code == 1
    assert victim in said.out
    assert "42701" in said.out
    status = await command("db", "status")
    assert status.code == 0
    assert "behind 9001" in status.out
    assert "42701" in status.out
    # A line for each cell, kind and revision, not for each schema.
    assert status.out.count("cell-1") == 4
    document = await command.json("db", "status")
    [left] = [each for each in document["schemas"] if not each["current"]]
    assert (left["schema"], left["trouble"]["state"], left["trouble"]["attempts"]) == (victim, "failed", 1)
    upgraded = await command("db", "upgrade", "--json")
    assert upgraded.code == 1
    assert upgraded.document["counts"] == {"failed": 1}
