"""Bare, empty and rebuilt: what is done to a target, and what is refused because others live there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest

from strata.migrator import ranges
from strata.migrator.copy_sessions import NotBypassingError, Warrant
from strata.migrator.fitness import ObjectionCode, objections_to_source, objections_to_target
from strata.migrator.indexes import SchemaDiffersError, build
from strata.migrator.tables import describe
from strata.migrator.target import ForeignRowsError, SharedHomeError, Target
from strata.platform.database.addresses import parse
from strata.tenancy.model import Tier
from tests.builders.copying import GOODS, NEIGHBOUR, TENANT, Homes, fill_goods, homes
from tests.servers import PostgresServer

FAMILY = """
CREATE TABLE parent (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id));
CREATE TABLE child (tenant_id uuid, id int, parent_id int, PRIMARY KEY (tenant_id, id),
    CONSTRAINT fk_child FOREIGN KEY (tenant_id, parent_id) REFERENCES parent);
"""


@pytest.fixture
async def shared(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Homes]:
    """Two shared homes; in the target 3,000 rows of the tenant and of a neighbour, parents and children."""
    monkeypatch.setattr(ranges, "FIRST_ROWS", 400)
    monkeypatch.setattr(ranges, "MOST_ROWS", 900)
    async with homes(postgres_server, second_postgres_server, FAMILY, target_tier=Tier.SHARED) as made:
        for tenant in (TENANT, NEIGHBOUR):
            await made.at_target.execute(
                f"INSERT INTO parent SELECT '{tenant}', i FROM generate_series(1, 3000) i;"
                f"INSERT INTO child SELECT '{tenant}', i, 3001 - i FROM generate_series(1, 3000) i"
            )
        yield made


async def test_emptying_a_shared_home_takes_this_tenants_rows_alone(shared: Homes) -> None:
    before = [await shared.rows(shared.target, table, NEIGHBOUR) for table in ("parent", "child")]
    asked = []

    async def throttle(worker: int) -> None:
        asked.append(worker)

    async with shared.origins(1) as (origin,):
        assert await Target(shared.target).empty(origin=origin, throttle=throttle) == 6_000
    assert await Target(shared.target).is_empty()
    assert len(asked) > 8
    assert [await shared.rows(shared.target, table, NEIGHBOUR) for table in ("parent", "child")] == before


async def test_each_batch_asks_whether_it_is_still_wanted(shared: Homes) -> None:
    """A worker that slept must not delete what has come back."""
    held = 0

    async def hold(connection: asyncpg.Connection) -> None:
        nonlocal held
        assert connection.is_in_transaction()
        held += 1
        if held == 4:
            raise asyncpg.RaiseError

    with pytest.raises(asyncpg.RaiseError):
        await Target(shared.target, Warrant(hold=hold)).empty()
    left = await shared.at_target.fetchval("SELECT count(*) FROM child WHERE tenant_id = $1", TENANT)
    assert 0 < left < 3_000
    assert await shared.at_target.fetchval("SELECT count(*) FROM parent WHERE tenant_id = $1", TENANT) == 3_000


async def test_a_shared_home_keeps_its_indexes(shared: Homes) -> None:
    with pytest.raises(SharedHomeError):
        await Target(shared.target).strip()
    before = await describe(shared.at_target, "shared")
    await build(shared.target, msgspec.structs.replace(before, tables=()))
    after = await describe(shared.at_target, "shared")
    assert [table.indexes for table in after.tables] == [table.indexes for table in before.tables]


async def test_a_home_of_ones_own_that_holds_others_is_not_emptied(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    async with homes(postgres_server, second_postgres_server) as made:
        await fill_goods(made.at_target, 10)
        with pytest.raises(ForeignRowsError):
            await Target(made.target).empty()
        assert await made.at_target.fetchval("SELECT count(*) FROM goods") == 20
        await made.at_target.execute("DELETE FROM goods WHERE tenant_id = $1", NEIGHBOUR)
        await Target(made.target).empty()
        assert await Target(made.target).is_empty()


async def test_every_statement_of_a_build_is_guarded(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    async with homes(postgres_server, second_postgres_server) as made:
        await Target(made.target).strip()

        async def hold(_connection: asyncpg.Connection) -> None:
            raise asyncpg.RaiseError

        for act in (
            build(made.target, await made.tables(), warrant=Warrant(hold=hold)),
            Target(made.target, Warrant(hold=hold)).strip(),
        ):
            with pytest.raises(asyncpg.RaiseError):
                await act
        assert (await describe(made.at_target, "main")).by_name["goods"].indexes == ()


async def test_a_target_that_cannot_become_like_the_source_says_in_what(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    other = GOODS.replace("sku text NOT NULL", "sku varchar(9) NOT NULL")
    async with homes(postgres_server, second_postgres_server, target_ddl=other) as made:
        with pytest.raises(SchemaDiffersError, match="Column sku of goods"):
            await build(made.target, await made.tables())


async def test_a_dangling_row_is_found_when_foreign_keys_come_back(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    async with homes(
        postgres_server, second_postgres_server, FAMILY + "CREATE INDEX ix ON child (tenant_id, parent_id)"
    ) as made:
        target = Target(made.target)
        await target.strip()
        await made.at_target.execute(f"INSERT INTO child VALUES ('{TENANT}', 1, 404)")
        for table in ("parent", "child"):
            await made.at_target.execute(
                f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} FORCE ROW LEVEL SECURITY;"
                f"CREATE POLICY wall ON {table} USING (false)"
            )
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await build(made.target, await made.tables())
        await made.at_target.execute(f"INSERT INTO parent VALUES ('{TENANT}', 404)")
        await build(made.target, await made.tables())


async def test_an_owner_held_by_row_level_security_would_mark_a_dangling_row_valid_and_is_refused(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    """What PostgreSQL does with such an owner, shown first; then that our build does not start as one."""
    async with homes(postgres_server, second_postgres_server, FAMILY) as made:
        await Target(made.target).strip()
        await made.at_target.execute(
            "CREATE ROLE held_owner LOGIN PASSWORD 'for-tests-only'; GRANT ALL ON SCHEMA main TO held_owner;"
            f"INSERT INTO child VALUES ('{TENANT}', 1, 404); ALTER TABLE parent ADD PRIMARY KEY (tenant_id, id)"
        )
        try:
            for table in ("parent", "child"):
                await made.at_target.execute(
                    f"ALTER TABLE {table} OWNER TO held_owner; ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;"
                    f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY; CREATE POLICY wall ON {table} USING (false)"
                )
            await made.at_target.execute(
                "SET ROLE held_owner; ALTER TABLE child ADD CONSTRAINT fk_child FOREIGN KEY (tenant_id, parent_id)"
                " REFERENCES parent (tenant_id, id); RESET ROLE"
            )
            valid = "SELECT convalidated FROM pg_constraint WHERE conname = 'fk_child'"
            assert await made.at_target.fetchval(valid) is True

            url = parse(second_postgres_server.dsn(made.target.cell, user="held_owner", password="for-tests-only"))
            held = msgspec.structs.replace(made.target, url=url)
            with pytest.raises(NotBypassingError):
                await build(held, await made.tables())
        finally:
            await made.at_target.execute("DROP OWNED BY held_owner; DROP ROLE held_owner")


SUSPICIOUS = """
CREATE TABLE fine (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id));
CREATE TABLE no_tenant (id int PRIMARY KEY);
CREATE UNLOGGED TABLE unlogged (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id));
CREATE TABLE no_key (tenant_id uuid, id int);
CREATE TABLE own_key (tenant_id uuid NOT NULL, id int PRIMARY KEY);
CREATE TABLE nothing (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE nothing REPLICA IDENTITY NOTHING;
CREATE TABLE by_index (tenant_id uuid, id int, n int NOT NULL UNIQUE, PRIMARY KEY (tenant_id, id));
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_n_key;
CREATE TABLE full_identity (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id));
ALTER TABLE full_identity REPLICA IDENTITY FULL;
CREATE TABLE outward (tenant_id uuid, id int, n int REFERENCES no_tenant, PRIMARY KEY (tenant_id, id));
CREATE TABLE heir (extra int, PRIMARY KEY (tenant_id, id)) INHERITS (fine);
CREATE TABLE text_tenant (tenant_id text, id int, PRIMARY KEY (tenant_id, id));
CREATE MATERIALIZED VIEW summary AS SELECT 1 AS one;
"""


async def test_what_stands_against_a_source(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    async with homes(postgres_server, second_postgres_server, SUSPICIOUS) as made:
        found = await objections_to_source(made.at_source, await made.tables())
        assert {(each.code, each.table) for each in found} == {
            (ObjectionCode.STRANGER, "no_tenant"),
            (ObjectionCode.STRANGER, "unlogged"),
            (ObjectionCode.STRANGER, "heir"),
            (ObjectionCode.STRANGER, "summary"),
            (ObjectionCode.NO_PRIMARY_KEY, "no_key"),
            (ObjectionCode.REPLICA_IDENTITY, "no_key"),
            (ObjectionCode.NO_PRIMARY_KEY, "own_key"),
            (ObjectionCode.REPLICA_IDENTITY, "own_key"),
            (ObjectionCode.REPLICA_IDENTITY, "nothing"),
            (ObjectionCode.REPLICA_IDENTITY, "by_index"),
            (ObjectionCode.REFERS_ELSEWHERE, "outward"),
            (ObjectionCode.TENANT_COLUMN_TYPE, "text_tenant"),
        }


async def test_a_source_that_a_subscription_feeds(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    async with homes(postgres_server, second_postgres_server) as made:
        assert await objections_to_source(made.at_source, await made.tables()) == []
        await made.at_source.execute(
            "CREATE SUBSCRIPTION feeds CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false, slot_name = NONE)"
        )
        await made.at_source.execute(
            "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate) SELECT oid, 'goods'::regclass, 'r' FROM pg_subscription"
            " WHERE subname = 'feeds'"
        )
        (found,) = await objections_to_source(made.at_source, await made.tables())
        assert (found.code, found.table) == (ObjectionCode.SUBSCRIBED, "goods")
        await made.at_source.execute("DROP SUBSCRIPTION feeds")


async def test_what_stands_against_a_target(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    more = (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "CREATE TRIGGER always BEFORE INSERT ON goods FOR EACH ROW EXECUTE FUNCTION f();"
        "ALTER TABLE goods ENABLE ALWAYS TRIGGER always"
    )
    async with homes(postgres_server, second_postgres_server, target_ddl=GOODS + more) as made:
        target = await describe(made.at_target, "main")
        source = await made.tables()
        found = await objections_to_target(made.at_target, made.target, target, source)
        assert [each.code for each in found] == [ObjectionCode.TRIGGER]
        await made.at_target.execute(f"INSERT INTO goods VALUES ('{TENANT}', 1, 'x')")
        await made.at_target.execute("ALTER TABLE goods ALTER COLUMN quantity TYPE int, ADD COLUMN extra int")
        found = await objections_to_target(made.at_target, made.target, await describe(made.at_target, "main"), source)
        assert [each.code for each in found] == [
            ObjectionCode.TABLES_DIFFER,
            ObjectionCode.TABLES_DIFFER,
            ObjectionCode.TRIGGER,
            ObjectionCode.NOT_EMPTY,
        ]
