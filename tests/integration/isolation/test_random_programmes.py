"""Whatever tenant A does, in whatever order, B's rows stay as they are to the byte."""

from __future__ import annotations

import random
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from strata.inventory.locations.models import Bin, Warehouse, Zone
from strata.inventory.products.models import Product
from strata.platform.errors import StrataError
from strata.runtime import Runtime
from strata.tenancy.cell.door import Isolation
from strata.tenancy.session import TenantSession
from tests.builders.attacks import ATTACKS, aims
from tests.builders.intruder import driver_of
from tests.builders.platform import Tenantry
from tests.builders.rows import Row, sample
from tests.builders.scenes import Meeting, Scene, new_scene

MODELS = [Product, Warehouse, Zone, Bin]
MADE: dict[Meeting, Scene] = {}
SETTINGS = [
    "SET row_security = off",
    "SET ROLE none",
    "SET search_path = shared, pg_temp",
    "SELECT set_config('backtrace_functions', 'shared 0000000000000000001 ' || replace('{b}', '-', ''), true)",
    "SELECT set_config('backtrace_functions', '', true)",
    "RESET backtrace_functions",
    "RESET ALL",
    "DEALLOCATE ALL",
    "SET ROLE {role}",
    "ROLLBACK TO SAVEPOINT step",
    "DROP OWNED BY CURRENT_USER",
]

attack = st.tuples(st.just("attack"), st.sampled_from(sorted(ATTACKS)), st.integers(0, 10))
setting = st.tuples(st.just("setting"), st.sampled_from(SETTINGS))
orm = st.tuples(
    st.just("orm"), st.sampled_from(["add", "update", "delete", "steal", "give", "read"]), st.sampled_from(MODELS)
)
block = st.tuples(
    st.lists(st.one_of(attack, attack, setting, orm), min_size=1, max_size=8), st.sampled_from(Isolation), st.booleans()
)
programme = st.lists(block, min_size=1, max_size=3)


@pytest.mark.parametrize(
    "meeting", [Meeting.SHARED_SHARED, Meeting.SCHEMA_SCHEMA, Meeting.SHARED_SCHEMA, Meeting.DEDICATED_STRAY]
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=programme, seed=st.integers(0, 2**32))
async def test_the_neighbours_rows_stay_identical(
    runtime: Runtime, tenant_on: Tenantry, meeting: Meeting, steps: list[Any], seed: int
) -> None:
    if meeting not in MADE:
        MADE[meeting] = await new_scene(runtime, tenant_on, meeting)
    scene = MADE[meeting]
    assert all(count == 1 for count, _ in scene.untouched.values())
    for block_steps, isolation, commits in steps:
        try:
            async with runtime.tenants.transaction(scene.attacker, isolation=isolation) as session:
                for step in block_steps:
                    await perform(session, scene, step, random.Random(seed))
                if not commits:
                    raise _Enough  # noqa: TRY301 - the block must see it
        except (_Enough, SQLAlchemyError, StrataError, asyncpg.PostgresError):
            pass
    assert await scene.fingerprint(runtime) == scene.untouched


class _Enough(Exception):  # noqa: N818 - the way out that rolls back
    pass


async def perform(session: TenantSession, scene: Scene, step: tuple[Any, ...], chance: random.Random) -> None:
    """One step in a savepoint, kept when it succeeds."""
    driver = await driver_of(session)
    statements: tuple[str, ...] = ()
    match step:
        case ("attack", name, number):
            found = aims(scene)
            statements = ATTACKS[name](found[number % len(found)])
        case ("setting", statement):
            victim = scene.victim.placement.schema_name if scene.victim is not None else "nobody"
            statements = (statement.format(b=scene.victim_id, role=victim),)
        case (_, kind, model):
            await session.execute(text("SAVEPOINT step"))
            try:
                await through_the_orm(session, scene, kind, model, chance)
            except (SQLAlchemyError, StrataError):
                session.expunge_all()
                await driver.execute("ROLLBACK TO SAVEPOINT step")
            return
    await driver.execute("SAVEPOINT step")
    for statement in statements:
        try:
            await driver.execute(statement)
        except asyncpg.PostgresError:
            await driver.execute("ROLLBACK TO SAVEPOINT step")
            return


async def through_the_orm(
    session: TenantSession, scene: Scene, kind: str, model: type[Any], chance: random.Random
) -> None:
    name = model.__tablename__
    their_id = scene.rows[name]["id"]
    match kind:
        case "add":
            row: Row = sample(scene.own[name], scene.victim_id, scene.rows)
            fields = {key: value for key, value in row.items() if key in {"sku", "code", "name", "tenant_id"}}
            session.add(model(**fields, **_parents(scene, name)))
            await session.flush()
        case "update":
            await session.execute(update(model).values(version=chance.randrange(1, 99)))
        case "delete":
            await session.execute(delete(model).where(model.id == their_id))
        case "steal":
            await session.execute(update(model).where(model.id == their_id).values(version=77))
        case "give":
            own = (await session.scalars(select(model).limit(1))).first()
            if own is not None:
                own.tenant_id = scene.victim_id
                await session.flush()
        case "read":
            found = await session.scalars(select(model.tenant_id))
            assert set(found) <= {scene.attacker.id}


def _parents(scene: Scene, name: str) -> dict[str, Any]:
    return {
        own: scene.rows[reference.table][other]
        for reference in scene.own[name].references
        for own, other in reference.columns.items()
    }
