"""New tenants by room, region and plan; a server that is drained, and the plan of who goes where."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from strata.platform.errors import ConflictError
from strata.runtime import Runtime
from strata.tenancy.catalog.tables import DrainKind, PlacementRow, ServerRow
from strata.tenancy.model import Tier
from strata.tenancy.provisioning.placing import NoRoomError
from strata.tenancy.provisioning.tenants import NewTenant
from tests.builders.platform import (
    ACTOR,
    FIRST_CELL,
    FIRST_SERVER,
    SECOND_CELL,
    SECOND_SERVER,
    new_platform,
    standing,
)
from tests.servers import PostgresServer, RedisServer


@pytest.fixture
async def estate(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer, redis_server: RedisServer, tmp_path: Path
) -> AsyncIterator[Runtime]:
    """A platform of the test's own: its cells are filled, and its servers drained."""
    async with standing(new_platform(postgres_server, second_postgres_server, redis_server, tmp_path)) as runtime:
        yield runtime


async def cell_of(estate: Runtime, slug: str, tier: Tier = Tier.SHARED, **wishes: str) -> str:
    await estate.provisioning.create(NewTenant(slug=slug, name=slug, tier=tier, **wishes), ACTOR)
    return (await estate.contexts.get_by_slug(slug)).placement.cell


async def server_of(estate: Runtime, slug: str, **wishes: str) -> str:
    cell = await cell_of(estate, slug, Tier.DEDICATED, **wishes)
    return next(each.server for each in await estate.registry.cells() if each.name == cell)


async def test_new_tenants_go_where_there_is_room_in_their_region_for_their_plan(estate: Runtime) -> None:
    await estate.cells.add_shared("small", SECOND_SERVER, actor=ACTOR, capacity=1)
    await estate.cells.add_shared("kept", FIRST_SERVER, actor=ACTOR, plans=["business"])
    assert await cell_of(estate, "a", plan="business", tier=Tier.SCHEMA) == "kept"
    assert await cell_of(estate, "b", plan="starter") == FIRST_CELL
    assert {await cell_of(estate, slug, plan="starter", region="south") for slug in ("c", "d")} == {
        SECOND_CELL,
        "small",
    }
    # Full, and passed over from now on.
    assert await cell_of(estate, "e", plan="starter", region="south") == SECOND_CELL
    await estate.drains.begin(DrainKind.CELL, SECOND_CELL, ACTOR)
    with pytest.raises(NoRoomError, match="in region south for plan starter"):
        await cell_of(estate, "f", plan="starter", region="south")
    await estate.drains.end(DrainKind.CELL, SECOND_CELL, ACTOR)
    assert await cell_of(estate, "f", plan="starter", region="south") == SECOND_CELL


async def test_dedicated_databases_keep_to_servers_with_room(estate: Runtime) -> None:
    assert await server_of(estate, "a") == FIRST_SERVER
    async with AsyncSession(estate.catalog_engine) as session, session.begin():
        await session.execute(update(ServerRow).where(ServerRow.name == SECOND_SERVER).values(capacity=1))
    assert await server_of(estate, "b") == SECOND_SERVER
    assert await server_of(estate, "c") == FIRST_SERVER
    with pytest.raises(NoRoomError):
        await server_of(estate, "d", region="south")


async def test_a_drained_server_has_a_plan_that_shrinks_as_its_tenants_leave(estate: Runtime) -> None:
    for slug, tier in (("a", Tier.SHARED), ("b", Tier.SCHEMA)):
        assert await cell_of(estate, slug, tier, region="north") == FIRST_CELL
    await estate.provisioning.create(NewTenant(slug="c", name="c", tier=Tier.SHARED, cell=FIRST_CELL), ACTOR)
    assert await server_of(estate, "d") == FIRST_SERVER
    plan = await estate.drains.begin(DrainKind.SERVER, FIRST_SERVER, ACTOR)
    assert [(move.slug, move.to_server, move.to_cell) for move in plan.moves] == [
        ("a", None, None),
        ("b", None, None),
        ("c", SECOND_SERVER, SECOND_CELL),
        ("d", SECOND_SERVER, None),
    ]
    assert plan.without_a_place == 2
    assert "region north, to which it is pinned" in plan.moves[0].reason
    assert "not pinned" in plan.moves[2].reason
    assert await cell_of(estate, "e") == SECOND_CELL

    await estate.cells.add_shared("north-2", SECOND_SERVER, actor=ACTOR, region="north")
    again = await estate.drains.begin(DrainKind.SERVER, FIRST_SERVER, ACTOR)
    assert [move.to_cell for move in again.moves] == ["north-2", "north-2", "north-2", None]

    # What the migrator does in the end, as far as the catalog sees it.
    async with AsyncSession(estate.catalog_engine) as session, session.begin():
        there = await estate.registry.cell_row(session, "north-2")
        await session.execute(
            update(PlacementRow).where(PlacementRow.tenant_id == again.moves[0].tenant_id).values(cell_id=there.id)
        )
    await estate.provisioning.delete("b", ACTOR)
    assert [move.slug for move in (await estate.drains.due(DrainKind.SERVER, FIRST_SERVER)).moves] == ["c", "d"]
    await estate.drains.end(DrainKind.SERVER, FIRST_SERVER, ACTOR)
    with pytest.raises(ConflictError, match="no plan"):
        await estate.drains.due(DrainKind.SERVER, FIRST_SERVER)
    assert await server_of(estate, "g") == FIRST_SERVER


async def test_plans_that_are_kept_count_for_one_another(estate: Runtime) -> None:
    """Two half-empty cells are not both sent to the same last free places."""
    await estate.cells.add_shared("tight", SECOND_SERVER, actor=ACTOR, capacity=1, region="north")
    await estate.cells.add_shared("full", SECOND_SERVER, actor=ACTOR, region="north")
    await estate.provisioning.create(
        NewTenant(slug="a", name="a", tier=Tier.SHARED, cell=FIRST_CELL, region="north"), ACTOR
    )
    await estate.provisioning.create(
        NewTenant(slug="b", name="b", tier=Tier.SHARED, cell="full", region="north"), ACTOR
    )
    first = await estate.drains.begin(DrainKind.CELL, "full", ACTOR)
    second = await estate.drains.begin(DrainKind.CELL, FIRST_CELL, ACTOR)
    assert [move.to_cell for move in (*first.moves, *second.moves)].count("tight") == 1
