"""strata server replica add, list and remove."""

from __future__ import annotations

import pytest

from strata.tenancy.replicas.lease import SPAN_S
from tests.builders.command import Command
from tests.builders.platform import SECOND_CELL, SECOND_SERVER, admin_of
from tests.builders.standbys import REPLICA, Replicated, register


@pytest.fixture
def strata_here(replicated: Replicated, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    settings = replicated.runtime.settings
    assert settings.database_url is not None
    assert settings.redis_url is not None
    for name, value in {
        "STRATA_ENVIRONMENT": "test",
        "STRATA_DATABASE_URL": settings.database_url.get_secret_value(),
        "STRATA_REDIS_URL": settings.redis_url.get_secret_value(),
        "STRATA_ROLE_PREFIX": settings.role_prefix,
        "STRATA_DATA_DIR": str(settings.data_dir),
    }.items():
        monkeypatch.setenv(name, value)
    return Command(capsys)


async def test_a_standby_is_added_shown_and_removed(replicated: Replicated, strata_here: Command) -> None:
    words = ("server", "replica")
    first = await replicated.id()
    await strata_here.json(*words, "add", SECOND_SERVER, REPLICA, replicated.standby.dsn())
    assert await replicated.id() == first, "the same address is the same standby"
    [shown] = (await strata_here.json(*words, "list", SECOND_SERVER))["replicas"]
    assert (shown["name"], shown["address"]) == (REPLICA, f"127.0.0.1:{replicated.standby.port}")
    assert (await strata_here.json(*words, "list", "one"))["replicas"] == []
    assert (await strata_here(*words, "list")).out.count(REPLICA) == 1

    await strata_here.json(*words, "remove", SECOND_SERVER, REPLICA)
    assert (await strata_here(*words, "remove", SECOND_SERVER, REPLICA, "--json")).error["code"] == "unknown-replica"
    await register(replicated.runtime, replicated.standby)
    assert await replicated.id() != first, "removed and added it is another one, with no lease yet"


async def test_what_is_no_standby_of_the_server_is_refused(replicated: Replicated, strata_here: Command) -> None:
    words = ("server", "replica", "add")
    said = await strata_here(*words, SECOND_SERVER, "x", replicated.primary.dsn(), "--json")
    assert (said.code, said.error["code"]) == (1, "configuration")
    assert "no standby" in said.error["detail"]
    said = await strata_here(*words, "one", "x", replicated.standby.dsn(), "--json")
    assert "another cluster" in said.error["detail"]
    said = await strata_here(*words, "nowhere", "x", replicated.standby.dsn(), "--json")
    assert said.error["code"] == "unknown-server"


async def test_the_lease_is_as_long_in_sql_as_here(replicated: Replicated) -> None:
    async with admin_of(replicated.runtime, SECOND_CELL) as admin:
        span = await admin.fetchval("SELECT extract(epoch FROM strata.standby_lease_span())::float8")
    assert span == SPAN_S


async def test_the_doctor_looks_at_it(replicated: Replicated, strata_here: Command) -> None:
    async def check() -> tuple[str, str]:
        said = (await strata_here("doctor", "--json")).document
        [found] = [check for check in said["checks"] if check["name"] == f"replica {REPLICA}"]
        return found["verdict"], found["found"]

    assert (await check())[0] == "ok"
    async with replicated.paused():
        assert await check() == ("warning", "its replay is paused")
