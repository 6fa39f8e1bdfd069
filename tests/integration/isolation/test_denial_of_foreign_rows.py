"""From inside tenant A's transaction: every way to B's rows, for every tenant table and partition in pg_catalog.

Each attack yields the tenant_id of the rows it reached. Nothing of B's may be among them, or PostgreSQL must refuse.
That an attack is well aimed is shown by running it without any layer, as the superuser: there it must reach B.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import asyncpg
import pytest
from msgspec import Struct, field

from strata.runtime import Runtime
from tests.builders.intruder import FORBIDDEN, NOT_ENTERED, Outcome, app_login, attempt, inside, named
from tests.builders.platform import admin_of
from tests.builders.rows import Row, Table, insertion, sample
from tests.builders.scenes import Scene

DIVISION_BY_ZERO = "22012"
NO_COPY_UNDER_RLS = "0A000"


class Aim(Struct, frozen=True):
    """One table of the victim's, as an attack sees it."""

    own: str
    theirs: str
    partitions: tuple[str, ...]
    a: str
    b: str
    row: Row
    fresh: Row
    table: Table

    name: str = field(default_factory=lambda: f"p{secrets.token_hex(8)}")
    """New each time: what PREPARE makes outlives the transaction."""

    @property
    def key(self) -> str:
        return f"tenant_id = {self.b} AND id = '{self.row['id']}'"


Attack = Callable[[Aim], tuple[str, ...]]

READS: dict[str, Attack] = {
    "select": lambda x: (f"SELECT tenant_id FROM {x.theirs}",),
    "table": lambda x: (f"SELECT tenant_id FROM (TABLE {x.theirs}) AS t",),
    "by key": lambda x: (f"SELECT tenant_id FROM {x.theirs} WHERE {x.key}",),
    "or true": lambda x: (f"SELECT tenant_id FROM {x.theirs} WHERE tenant_id = {x.b} OR true",),
    "count": lambda x: (f"SELECT {x.b} FROM (SELECT count(*) FROM {x.theirs} WHERE {x.key}) AS t(n) WHERE n > 0",),
    "exists": lambda x: (f"SELECT {x.b} WHERE EXISTS (SELECT FROM {x.theirs} WHERE {x.key})",),
    "join": lambda x: (f"SELECT o.tenant_id FROM {x.own} m JOIN {x.theirs} o ON o.tenant_id <> m.tenant_id",),
    "outer join": lambda x: (
        f"SELECT o.tenant_id FROM {x.own} m FULL JOIN {x.theirs} o ON false WHERE o.id IS NOT NULL",
    ),
    "lateral": lambda x: (
        f"SELECT o.tenant_id FROM (SELECT {x.b} AS b) v, LATERAL (SELECT * FROM {x.theirs} t WHERE t.tenant_id = v.b) o",
    ),
    "sub-query": lambda x: (f"SELECT (SELECT tenant_id FROM {x.theirs} WHERE {x.key})",),
    "cte": lambda x: (f"WITH c AS MATERIALIZED (SELECT * FROM {x.theirs}) SELECT tenant_id FROM c",),
    "union": lambda x: (f"SELECT tenant_id FROM {x.own} UNION ALL SELECT tenant_id FROM {x.theirs}",),
    "aggregate": lambda x: (f"SELECT unnest(array_agg(tenant_id)) FROM {x.theirs}",),
    "window": lambda x: (f"SELECT first_value(tenant_id) OVER (ORDER BY (tenant_id = {x.b}) DESC) FROM {x.theirs}",),
    "whole row": lambda x: (f"SELECT (to_jsonb(t) ->> 'tenant_id')::uuid FROM {x.theirs} t",),
    "physical row": lambda x: (f"SELECT tenant_id FROM {x.theirs} WHERE ctid IS NOT NULL",),
    "sample": lambda x: (f"SELECT tenant_id FROM {x.theirs} TABLESAMPLE BERNOULLI (100)",),
    "query in a string": lambda x: (
        f"SELECT {x.b} FROM ts_stat($$SELECT array_to_tsvector(ARRAY[tenant_id::text]) FROM {x.theirs}$$)"
        f" WHERE word = {x.b}::text",
    ),
    "predicate that tells by failing": lambda x: (
        f"SELECT tenant_id FROM {x.theirs} WHERE 1 / (CASE WHEN tenant_id = {x.b} THEN 0 ELSE 1 END) = 1",
    ),
    "for update": lambda x: (f"SELECT tenant_id FROM {x.theirs} FOR UPDATE",),
    "for key share": lambda x: (f"SELECT tenant_id FROM {x.theirs} FOR KEY SHARE",),
    "cursor": lambda x: (f"DECLARE peek CURSOR FOR SELECT tenant_id FROM {x.theirs}", "FETCH ALL FROM peek"),
    "cursor with hold": lambda x: (
        f"DECLARE keep CURSOR WITH HOLD FOR SELECT tenant_id FROM {x.theirs}",
        "FETCH ALL FROM keep",
    ),
    "prepared": lambda x: (
        f"PREPARE {x.name}(uuid) AS SELECT tenant_id FROM {x.theirs} WHERE tenant_id = $1",
        f"EXECUTE {x.name}({x.b})",
    ),
    "row security off": lambda x: ("SET LOCAL row_security = off", f"SELECT tenant_id FROM {x.theirs}"),
    "search_path": lambda x: (
        f"SET LOCAL search_path = {x.theirs.split('.')[0]}",
        f"SELECT tenant_id FROM {x.theirs.split('.')[1]}",
    ),
    "definer's name": lambda x: ("SET LOCAL ROLE none", f"SELECT tenant_id FROM {x.theirs}"),
}

WRITES: dict[str, Attack] = {
    "insert": lambda x: (f"{insertion(x.table, x.fresh)} RETURNING tenant_id",),
    "insert through own table": lambda x: (f"{insertion(x.table, x.fresh, x.own)} RETURNING tenant_id",),
    "insert over": lambda x: (
        f"{insertion(x.table, x.row)} ON CONFLICT (tenant_id, id) DO UPDATE SET id = excluded.id RETURNING tenant_id",
    ),
    "update": lambda x: (f"UPDATE {x.theirs} SET id = id WHERE {x.key} RETURNING tenant_id",),
    "update all": lambda x: (f"UPDATE {x.theirs} SET id = id RETURNING tenant_id",),
    "update give": lambda x: (f"UPDATE {x.own} SET tenant_id = {x.b} RETURNING tenant_id",),
    "update take": lambda x: (f"UPDATE {x.theirs} SET tenant_id = {x.a} WHERE tenant_id = {x.b} RETURNING {x.b}",),
    "update from": lambda x: (
        f"UPDATE {x.theirs} o SET id = o.id FROM {x.own} m WHERE o.tenant_id <> m.tenant_id RETURNING o.tenant_id",
    ),
    "delete": lambda x: (f"DELETE FROM {x.theirs} WHERE {x.key} RETURNING tenant_id",),
    "delete all": lambda x: (f"DELETE FROM {x.theirs} RETURNING tenant_id",),
    "delete using": lambda x: (
        f"DELETE FROM {x.theirs} o USING {x.own} m WHERE o.tenant_id <> m.tenant_id RETURNING o.tenant_id",
    ),
    "delete in a cte": lambda x: (
        f"WITH gone AS (DELETE FROM {x.theirs} RETURNING tenant_id) SELECT tenant_id FROM gone",
    ),
    "merge": lambda x: (
        f"MERGE INTO {x.theirs} t USING (SELECT {x.b} AS b) v ON t.tenant_id = v.b WHEN MATCHED THEN DELETE"
        " RETURNING t.tenant_id",
    ),
}

ATTACKS = READS | WRITES

FOREIGN_KEY = "23503"
UNKNOWN_TABLE = "42P01"
# What may stop an attack besides the walls: deleting own rows that others refer to; a schema one may not use is not
# searched.
OWN_TROUBLE = {
    "delete all": (FOREIGN_KEY,),
    "delete in a cte": (FOREIGN_KEY,),
    "search_path": (UNKNOWN_TABLE,),
}


async def aims(runtime: Runtime, scene: Scene) -> list[Aim]:
    found = []
    for name, table in scene.theirs.items():
        found.append(
            Aim(
                own=scene.own[name].qualified,
                theirs=table.qualified,
                partitions=table.partitions,
                a=named(scene.attacker.id),
                b=named(scene.victim_id),
                row=scene.rows[name],
                fresh=sample(table, scene.victim_id, scene.rows),
                table=table,
            )
        )
    return found


def reached(outcome: Outcome, scene: Scene) -> bool:
    return outcome.sqlstate == DIVISION_BY_ZERO or any(row[0] == scene.victim_id for row in outcome.rows)


@pytest.mark.parametrize("attack", ATTACKS)
async def test_nothing_of_another_tenant_is_reached(runtime: Runtime, scene: Scene, attack: str) -> None:
    before = await scene.fingerprint(runtime)

    async with inside(runtime, scene.attacker) as connection:
        for aim in await aims(runtime, scene):
            outcome = await attempt(connection, *ATTACKS[attack](aim))
            assert not reached(outcome, scene), aim.theirs
            assert outcome.sqlstate in {None, FORBIDDEN, NOT_ENTERED, *OWN_TROUBLE.get(attack, ())}, (
                aim.theirs,
                outcome,
            )
            if attack.startswith("insert"):
                assert outcome.sqlstate == FORBIDDEN, aim.theirs

    assert await scene.fingerprint(runtime) == before


@pytest.mark.parametrize("attack", ATTACKS)
async def test_without_any_layer_the_attack_reaches_them(runtime: Runtime, scene: Scene, attack: str) -> None:
    """The control: what the test above finds nothing with does find, once nothing guards."""
    async with admin_of(runtime, scene.attacker.placement.cell) as admin, admin.transaction():
        # Foreign keys would stop a row's move to another tenant; here they must not be what stops it.
        await admin.execute("SET LOCAL session_replication_role = replica")
        for aim in await aims(runtime, scene):
            outcome = await attempt(admin, *ATTACKS[attack](aim))
            assert reached(outcome, scene), (aim.theirs, outcome)


async def test_partitions_are_closed_to_everybody(runtime: Runtime, scene: Scene) -> None:
    tried = 0
    async with inside(runtime, scene.attacker) as connection:
        for aim in await aims(runtime, scene):
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
        for aim in await aims(runtime, scene):
            for statement in (f"COPY {aim.theirs} TO STDOUT", f"COPY (SELECT * FROM {aim.theirs}) TO STDOUT"):
                assert str(scene.victim_id) not in await _copied(connection, statement)


async def test_copy_in_is_refused(runtime: Runtime, scene: Scene) -> None:
    async with inside(runtime, scene.attacker) as connection:
        for aim in await aims(runtime, scene):
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
    for aim in await aims(runtime, scene):
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
        await connection._copy_out(statement, take, 30)
    except asyncpg.PostgresError as error:
        assert error.sqlstate == FORBIDDEN
    finally:
        await connection.execute("ROLLBACK TO SAVEPOINT attempt")
    return b"".join(chunks).decode()
