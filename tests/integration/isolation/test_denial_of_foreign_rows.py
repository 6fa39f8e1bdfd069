"""From inside tenant A's transaction: every way to B's rows, for every tenant table and partition in pg_catalog.

Each attack yields the tenant_id of the rows it reached. Nothing of B's may be among them, or PostgreSQL must refuse.
That an attack is well aimed is shown by running it without any layer, as the superuser: there it must reach B.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from strata.runtime import Runtime
from tests.builders.attacks import ATTACKS, FOREIGN_KEY, OWN_TROUBLE, aims, reached
from tests.builders.intruder import FORBIDDEN, NOT_ENTERED, Outcome, app_login, attempt, inside
from tests.builders.platform import admin_of
from tests.builders.rows import Row, insertion, sample
from tests.builders.scenes import Scene

NO_COPY_UNDER_RLS = "0A000"


@pytest.mark.parametrize("attack", ATTACKS)
async def test_nothing_of_another_tenant_is_reached(runtime: Runtime, scene: Scene, attack: str) -> None:
    async with inside(runtime, scene.attacker) as connection:
        for aim in aims(scene):
            outcome = await attempt(connection, *ATTACKS[attack](aim))
            assert not reached(outcome, scene), aim.theirs
            assert outcome.sqlstate in {None, FORBIDDEN, NOT_ENTERED, *OWN_TROUBLE.get(attack, ())}, (
                aim.theirs,
                outcome,
            )
            if attack.startswith("insert"):
                assert outcome.sqlstate == FORBIDDEN, aim.theirs

    assert await scene.fingerprint(runtime) == scene.untouched


@pytest.mark.parametrize("attack", ATTACKS)
async def test_without_any_layer_the_attack_reaches_them(runtime: Runtime, scene: Scene, attack: str) -> None:
    """The control: what the test above finds nothing with does find, once nothing guards."""
    async with admin_of(runtime, scene.attacker.placement.cell) as admin, admin.transaction():
        # Foreign keys would stop a row's move to another tenant; here they must not be what stops it.
        await admin.execute("SET LOCAL session_replication_role = replica")
        for aim in aims(scene):
            outcome = await attempt(admin, *ATTACKS[attack](aim))
            assert reached(outcome, scene), (aim.theirs, outcome)


async def test_partitions_are_closed_to_everybody(runtime: Runtime, scene: Scene) -> None:
    tried = 0
    async with inside(runtime, scene.attacker) as connection:
        for aim in aims(scene):
            for partition in {*aim.partitions, *scene.own[aim.table.name].partitions}:
                for statement in (
                    f"SELECT * FROM {partition}",
                    f"UPDATE {partition} SET id = id",
                    f"DELETE FROM {partition}",
                    insertion(aim.table, aim.fresh, partition),
                ):
                    assert (await attempt(connection, statement)).sqlstate == FORBIDDEN, statement
                    tried += 1
    assert tried >= 8


async def test_copy_out_takes_own_rows_only(runtime: Runtime, scene: Scene) -> None:
    async with inside(runtime, scene.attacker) as connection:
        for aim in aims(scene):
            for statement in (f"COPY {aim.theirs} TO STDOUT", f"COPY (SELECT * FROM {aim.theirs}) TO STDOUT"):
                assert str(scene.victim_id) not in await _copied(connection, statement)


async def test_copy_in_is_refused(runtime: Runtime, scene: Scene) -> None:
    async with inside(runtime, scene.attacker) as connection:
        for aim in aims(scene):
            await connection.execute("SAVEPOINT attempt")
            with pytest.raises(asyncpg.PostgresError) as refusal:
                await connection.copy_records_to_table(
                    aim.table.name,
                    schema_name=aim.table.schema,
                    columns=["tenant_id", "id"],
                    records=[(scene.victim_id, uuid4())],
                )
            assert refusal.value.sqlstate in {FORBIDDEN, NO_COPY_UNDER_RLS}
            await connection.execute("ROLLBACK TO SAVEPOINT attempt")


async def test_anothers_rows_are_not_betrayed_by_a_unique_violation(runtime: Runtime, scene: Scene) -> None:
    """The attacker may have the same id, code and name as the victim, and so learns nothing from being refused one."""
    async with inside(runtime, scene.attacker) as connection:
        parents: dict[str, Row] = {}
        await connection.execute("SAVEPOINT attempt")
        for name, table in scene.own.items():
            row = scene.rows[name] | {"tenant_id": str(scene.attacker.id)}
            await connection.execute(insertion(table, row))
            parents[name] = row
        await connection.execute("ROLLBACK TO SAVEPOINT attempt")
    assert len(parents) == len(scene.theirs)


async def test_a_foreign_key_cannot_point_at_anothers_row(runtime: Runtime, scene: Scene) -> None:
    tried = 0
    async with inside(runtime, scene.attacker) as connection:
        for table in scene.own.values():
            row = sample(table, scene.attacker.id, scene.rows)
            if any(row[own] == parent["id"] for own in row for parent in scene.rows.values() if own != "id"):
                outcome = await attempt(connection, insertion(table, row), "SET CONSTRAINTS ALL IMMEDIATE")
                assert outcome.sqlstate == FOREIGN_KEY, (table.name, outcome)
                tried += 1
    assert tried >= 5


async def test_no_statement_finds_nothing_when_nobody_has_entered(
    runtime: Runtime, scene: Scene, unentered: asyncpg.Connection
) -> None:
    """Never silently empty: an application that forgot to enter gets a named error from every statement."""
    for aim in aims(scene):
        for name, attack in ATTACKS.items():
            outcome = await _alone(unentered, attack(aim))
            assert outcome.sqlstate in {FORBIDDEN, NOT_ENTERED, *OWN_TROUBLE.get(name, ())}, (name, aim.theirs, outcome)


@pytest.fixture
async def unentered(runtime: Runtime, scene: Scene) -> AsyncIterator[asyncpg.Connection]:
    async with app_login(runtime, scene.attacker.placement.cell) as connection:
        yield connection


async def _alone(connection: asyncpg.Connection, statements: tuple[str, ...]) -> Outcome:
    await connection.execute("BEGIN")
    try:
        return await attempt(connection, *statements)
    finally:
        await connection.execute("ROLLBACK")


async def _copied(connection: asyncpg.Connection, statement: str) -> str:
    chunks: list[bytes] = []

    async def take(data: bytes) -> None:
        chunks.append(data)

    await connection.execute("SAVEPOINT attempt")
    try:
        await connection._copy_out(statement, take, 30)  # type: ignore[attr-defined]
    except asyncpg.PostgresError as error:
        assert error.sqlstate == FORBIDDEN
    finally:
        await connection.execute("ROLLBACK TO SAVEPOINT attempt")
    return b"".join(chunks).decode()
