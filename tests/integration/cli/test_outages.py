"""A server is away: commands end with a sentence that names it and says what to do, and print nothing half."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest

from strata.cli import silence
from strata.platform.embedded import EmbeddedPostgres
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import CellUnavailableError
from strata.tenancy.model import Tier
from tests.builders.breakable import Breakable, breakable, kill, revive
from tests.builders.command import Command, Said, environment_for
from tests.builders.inventory import stocked
from tests.builders.platform import SECOND_CELL, SECOND_SERVER, as_admin

# Those that need the tenant's cell, which is on the second server; the catalog is on the first.
OF_THE_TENANT = (
    "tenant attest {slug}",
    "audit list {slug}",
    "audit verify {slug}",
    "audit export {slug}",
    "audit export {slug} --format csv",
)
OF_THE_STAFF = (
    "audit list",
    "audit verify",
    "audit export",
    "audit export --format csv",
    "tenant list",
    "settings show {slug}",
    "neighbours list",
)


@pytest.fixture(scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Breakable]:
    async with breakable(tmp_path_factory.mktemp("away")) as made:
        yield made


@pytest.fixture
async def tenant(ground: Breakable) -> TenantContext:
    context = await ground.tenants(Tier.SCHEMA, cell=SECOND_CELL)
    await stocked(ground.runtime, context)
    return context


@pytest.fixture
def command(ground: Breakable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for name, value in environment_for(ground.platform).items():
        monkeypatch.setenv(name, value)
    return Command(capsys)


async def ran(command: Command, tenant: TenantContext, lines: Iterable[str]) -> dict[str, Said]:
    return {line: await command(*line.format(slug=tenant.slug).split()) for line in lines}


def sentence_of(said: Said, beginning: str) -> str:
    """The one; the relay of this process may log beside it that it has lost a server."""
    [sentence] = [line for line in said.err.splitlines() if line.startswith(beginning)]
    return sentence


def address_of(server: EmbeddedPostgres) -> str:
    return server.dsn().rpartition("@")[2].partition("/")[0]


async def test_of_a_cell_that_is_away_its_server_is_named(
    ground: Breakable, tenant: TenantContext, command: Command
) -> None:
    await kill(ground.second)
    try:
        for line, said in (await ran(command, tenant, OF_THE_TENANT)).items():
            assert (said.code, said.out) == (1, ""), line
            sentence = sentence_of(said, "Cell ")
            for named in (f"«{SECOND_CELL}»", f"«{SECOND_SERVER}»", address_of(ground.second), "start PostgreSQL"):
                assert named in sentence, line
            assert "STRATA_DATABASE_URL" not in sentence, line
        for line, said in (await ran(command, tenant, OF_THE_STAFF)).items():
            assert said.code == 0, (line, said.err)
        error = (await command("audit", "list", tenant.slug, "--json")).error
        assert (error["code"], error["cell"], error["server"]) == ("cell-silent", SECOND_CELL, SECOND_SERVER)
    finally:
        await revive(ground.second)
    assert {said.code for said in (await ran(command, tenant, OF_THE_TENANT)).values()} == {0}


async def test_of_a_catalog_that_is_away_its_address_and_setting_are_named(
    ground: Breakable, tenant: TenantContext, command: Command
) -> None:
    await kill(ground.first)
    try:
        for line, said in (await ran(command, tenant, (*OF_THE_TENANT, *OF_THE_STAFF))).items():
            assert (said.code, said.out) == (1, ""), line
            sentence = sentence_of(said, "The catalog")
            for named in ("catalog", address_of(ground.first), "STRATA_DATABASE_URL"):
                assert named in sentence, line
        assert (await command("audit", "list", "--json")).error["code"] == "catalog-silent"
    finally:
        await revive(ground.first)
    assert {said.code for said in (await ran(command, tenant, (*OF_THE_TENANT, *OF_THE_STAFF))).values()} == {0}


async def explained(ground: Breakable, error: Exception) -> tuple[str, str]:
    found = await silence.of(ground.runtime.catalog_url, ground.runtime.registry, error)
    assert found is not None
    return found.code, found.detail


async def test_a_connection_lost_on_the_way_is_asked_after(ground: Breakable) -> None:
    lost = ConnectionResetError("Connection lost")
    assert (await explained(ground, lost))[0] == "answers-again"
    code, detail = await explained(ground, CellUnavailableError(SECOND_CELL))
    assert (code, f"«{SECOND_CELL}»" in detail) == ("answers-again", True)
    assert await silence.of(ground.runtime.catalog_url, ground.runtime.registry, ValueError("a mistake")) is None
    await kill(ground.second)
    try:
        code, detail = await explained(ground, ExceptionGroup("side by side", [lost]))
        assert code == "server-silent"
        assert f"«{SECOND_SERVER}» ({address_of(ground.second)})" in detail
        assert "«one»" not in detail
    finally:
        await revive(ground.second)
    await kill(ground.first)
    try:
        code, detail = await explained(ground, lost)
        assert (code, address_of(ground.first) in detail) == ("catalog-silent", True)
    finally:
        await revive(ground.first)


async def test_a_cell_whose_database_is_missing_is_not_taken_for_the_catalog(
    ground: Breakable, tenant: TenantContext, command: Command
) -> None:
    database = (await ground.runtime.registry.admin_url_of_cell(SECOND_CELL)).database
    async with as_admin(ground.platform.second, "postgres") as admin:
        await ground.runtime.engines.close()
        await admin.execute(f'ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS false')
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", database)
        await admin.execute(f'ALTER DATABASE "{database}" RENAME TO "{database}_gone"')
        try:
            for line, said in (await ran(command, tenant, OF_THE_TENANT)).items():
                assert (said.code, said.out) == (1, ""), line
                assert "strata doctor" in said.err, line
                assert "strata db upgrade" not in said.err, line
        finally:
            await admin.execute(f'ALTER DATABASE "{database}_gone" RENAME TO "{database}"')
            await admin.execute(f'ALTER DATABASE "{database}" WITH ALLOW_CONNECTIONS true')
