"""Between an older PostgreSQL and the newest, both ways: a move is also a way to a newer one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from strata.events import relaying
from strata.migrator.phases import Phase, Wish
from strata.platform.settings import CacheSettings, FenceSettings
from strata.tenancy.model import Tier
from tests.builders.move_worker import QUICK
from tests.builders.moving import Movers
from tests.builders.older_postgres import older_postgres, older_version
from tests.builders.platform import (
    ACTOR,
    FIRST_CELL,
    SECOND_CELL,
    SECOND_SERVER,
    Tenantry,
    admin_of,
    new_platform,
    standing,
)
from tests.builders.site import Site, serving
from tests.builders.traffic import assert_kept, traffic
from tests.servers import PostgresServer, RedisServer


class Mixed(msgspec.Struct, frozen=True):
    """Catalog and `cell-1` on the newest PostgreSQL, `cell-2` on an older one."""

    movers: Movers
    tenants: Tenantry
    site: Site


@pytest.fixture(scope="module")
async def mixed(
    postgres_server: PostgresServer, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Mixed]:
    directory = tmp_path_factory.mktemp("older")
    with older_postgres(directory / "postgres") as older:
        platform = new_platform(postgres_server, older, redis_server, directory)
        settings = {"migrator": QUICK, "fence": FenceSettings(wait_s=30), "cache": CacheSettings(redis_timeout_s=5.0)}
        async with standing(platform, **settings) as runtime, relaying(runtime), serving(runtime) as site:
            async with admin_of(runtime, SECOND_CELL) as admin:
                version: int = await admin.fetchval("SELECT current_setting('server_version_num')::int / 10000")
            assert version == older_version()
            yield Mixed(Movers(runtime), Tenantry(runtime), site)


async def test_there_and_back_with_all_that_was_written_there(mixed: Mixed) -> None:
    movers = mixed.movers
    context = await mixed.tenants(Tier.SHARED)
    async with traffic(mixed.site, context) as ledger:
        move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL, retention_s=3600)
        async with movers.working(move):
            await movers.until(move, Phase.RETAINING)
            await movers.desk.ask(move.id, Wish.ROLL_BACK, ACTOR)
            await movers.until(move, Phase.ROLLED_BACK)
    await assert_kept(movers.runtime, context, ledger)
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {FIRST_CELL: ["shared"]}


_TO_THE_OLDER: dict[Tier, dict[str, Any]] = {
    Tier.SHARED: {"cell": SECOND_CELL},
    Tier.SCHEMA: {"cell": SECOND_CELL},
    Tier.DEDICATED: {"server": SECOND_SERVER},
}


@pytest.mark.slow
@pytest.mark.parametrize("tier", Tier)
async def test_every_tier_to_the_older_one_and_on_to_the_newest(mixed: Mixed, tier: Tier) -> None:
    movers = mixed.movers
    context = await mixed.tenants(Tier.SCHEMA)
    async with traffic(mixed.site, context) as ledger:
        there = await movers.move(context, tier, **_TO_THE_OLDER[tier])
        on = await movers.move(context, Tier.SHARED, cell=FIRST_CELL)
    await assert_kept(movers.runtime, context, ledger)
    for move in (there, on):
        assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {FIRST_CELL: ["shared"]}
