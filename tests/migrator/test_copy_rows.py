"""The copier alone: whose rows, all of them, each once, in one snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from strata.migrator import ranges
from strata.migrator.copier import Copier, Progress, RowsRefusedError
from strata.migrator.copy_sessions import NotBypassingError, Warrant, reading
from strata.migrator.ranges import Walk
from strata.migrator.tables import Home, describe
from strata.platform.database.addresses import parse
from strata.tenancy.model import Tier
from tests.builders.copying import NEIGHBOUR, TENANT, Homes, fill_goods, homes
from tests.servers import PostgresServer


@pytest.fixture
async def goods(postgres_server: PostgresServer, second_postgres_server: PostgresServer) -> AsyncIterator[Homes]:
    """5,000 rows of the tenant and as many of a neighbour; the target a database of the tenant's own."""
    async with homes(postgres_server, second_postgres_server) as made:
        await fill_goods(made.at_source, 5_000)
        yield made


@pytest.fixture
def short_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rows in (("FIRST_ROWS", 700), ("FEWEST_ROWS", 50), ("MOST_ROWS", 900)):
        monkeypatch.setattr(ranges, name, rows)


@pytest.mark.usefixtures("short_ranges")
async def test_every_row_of_the_tenant_arrives_once_and_nobody_elses(goods: Homes) -> None:
    copied = await goods.copy()
    assert copied.rows == {"goods": 5_000}
    assert copied.ranges > 5
    assert await goods.rows(goods.target, "goods") == await goods.rows(goods.source, "goods")
    assert await goods.at_target.fetchval("SELECT count(*) FROM goods WHERE tenant_id <> $1", TENANT) == 0


@pytest.mark.usefixtures("short_ranges")
async def test_in_a_shared_target_the_neighbours_rows_stay_as_they_are(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    async with homes(postgres_server, second_postgres_server, target_tier=Tier.SHARED) as goods:
        await fill_goods(goods.at_source, 2_000)
        await fill_goods(goods.at_target, 1_000, tenants=[NEIGHBOUR])
        before = await goods.rows(goods.target, "goods", NEIGHBOUR)
        indexes = (await describe(goods.at_target, goods.target.schema_name)).by_name["goods"].indexes
        await goods.copy()
        assert await goods.rows(goods.target, "goods", NEIGHBOUR) == before
        assert await goods.rows(goods.target, "goods") == await goods.rows(goods.source, "goods")
        assert (await describe(goods.at_target, goods.target.schema_name)).by_name["goods"].indexes == indexes


@pytest.mark.usefixtures("short_ranges")
async def test_what_is_written_after_the_snapshot_is_not_copied(goods: Homes) -> None:
    before = await goods.rows(goods.source, "goods")

    async def write(_worker: int) -> None:
        await goods.at_source.execute("UPDATE goods SET quantity = quantity + 1, id = id + 100000 WHERE id % 500 = 0")
        await goods.at_source.execute(
            "DELETE FROM goods WHERE id % 7 = 0; INSERT INTO goods VALUES (gen_random_uuid(), 1, 'new')"
        )

    await goods.copy(throttle=write, workers=1)
    assert await goods.rows(goods.target, "goods") == before


@pytest.mark.parametrize(
    "key",
    [
        "id bigint",
        "id uuid DEFAULT gen_random_uuid()",
        'id text COLLATE "C"',
        "id numeric",
        "id timestamptz",
        "id float8",
    ],
)
@pytest.mark.usefixtures("short_ranges")
async def test_ranges_leave_no_gap_and_no_overlap_whatever_the_keys_type(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer, key: str
) -> None:
    kind = key.split()[1]
    value = {
        "uuid": "gen_random_uuid()",
        "text": "i || E'\\'\"\\\\ ' || repeat('é', i % 3)",
        "numeric": "i / 3.0",
        "timestamptz": "now() + i * interval '1 microsecond'",
        "float8": "CASE i WHEN 1 THEN 'NaN' WHEN 2 THEN '-Infinity' ELSE sqrt(i) END",
    }.get(kind, "i - 1500")
    ddl = f"CREATE TABLE things (tenant_id uuid, {key}, n int, PRIMARY KEY (tenant_id, id))"
    async with homes(postgres_server, second_postgres_server, ddl) as made:
        await made.at_source.execute(
            f"INSERT INTO things SELECT '{TENANT}', {value}, i FROM generate_series(1, 3000) i; ANALYZE things"
        )
        await made.copy()
        assert await made.at_target.fetchval("SELECT count(*) FROM things") == 3_000
        assert await made.rows(made.target, "things") == await made.rows(made.source, "things")


@pytest.mark.usefixtures("short_ranges")
async def test_ranges_of_a_key_of_several_columns_with_the_tenant_in_the_middle(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    ddl = "CREATE TABLE things (a int, tenant_id uuid, b text, c date, PRIMARY KEY (a, tenant_id, b, c))"
    async with homes(postgres_server, second_postgres_server, ddl) as made:
        await made.at_source.execute(
            f"INSERT INTO things SELECT i % 3, t::uuid, 'b' || i % 11, date '2026-01-01' + i / 33"
            f" FROM generate_series(1, 2500) i, (VALUES ('{TENANT}'), ('{NEIGHBOUR}')) v (t)"
        )
        copied = await made.copy()
        assert copied.rows == {"things": 2_500}
        assert await made.rows(made.target, "things") == await made.rows(made.source, "things")


@pytest.mark.usefixtures("short_ranges")
async def test_workers_share_one_walk(goods: Homes) -> None:
    table = (await goods.tables()).by_name["goods"]
    walk = Walk(table, goods.source)
    found = []
    async with goods.snapshot() as snapshot:

        async def take() -> None:
            async with reading(goods.source, snapshot, Warrant()) as connection:
                while (part := await walk.take(connection)) is not None:
                    found.append(part)

        await asyncio.gather(take(), take(), take())
    conditions = " UNION ALL ".join(f"SELECT id FROM goods WHERE {part.condition}" for part in found)
    rows = await goods.at_source.fetchrow(f"SELECT count(*), count(DISTINCT id) FROM ({conditions}) x")
    assert tuple(rows or ()) == (5_000, 5_000)
    assert len(found) == 8


@pytest.mark.usefixtures("short_ranges")
async def test_progress_tells_rows_bytes_and_the_end_of_each_table(goods: Homes) -> None:
    heard: list[Progress] = []
    copied = await goods.copy(progress=heard.append)
    assert heard[-1].done
    assert heard[-1].rows == 5_000
    assert heard[-1].size_bytes == copied.size_bytes > 5_000 * 30
    assert 3_000 < heard[0].estimated_rows < 8_000
    assert [each.rows for each in heard] == sorted(each.rows for each in heard)


@pytest.mark.usefixtures("short_ranges")
async def test_every_range_first_asks_whether_it_is_still_wanted(goods: Homes) -> None:
    held = 0

    async def hold(connection: asyncpg.Connection) -> None:
        nonlocal held
        assert connection.is_in_transaction()
        assert await connection.fetchval("SELECT current_setting('application_name')") == "strata-move-7"
        held += 1
        if held > 3:
            raise asyncpg.RaiseError

    with pytest.raises(asyncpg.RaiseError):
        await goods.copy(warrant=Warrant("strata-move-7", hold), workers=1)
    assert 0 < await goods.at_target.fetchval("SELECT count(*) FROM goods") < 5_000


async def test_a_target_that_has_rows_already_is_refused_without_quoting_them(goods: Homes) -> None:
    await goods.at_target.execute("INSERT INTO goods SELECT $1, 5, 'secret-sku'", TENANT)
    with pytest.raises(RowsRefusedError) as refused:
        async with goods.snapshot() as snapshot, goods.origins(2) as origins:
            copier = Copier(goods.source, goods.target, await goods.tables(), snapshot=snapshot, origins=origins)
            await copier.run()
    assert refused.value.table == "goods"
    assert "sku" not in refused.value.detail


@pytest.mark.usefixtures("short_ranges")
async def test_no_truncate_and_no_alter_while_the_snapshot_is_read(goods: Homes) -> None:
    """Neither respects snapshots: the rest of the table would look empty, and the copy would call itself complete."""
    refused = []

    async def interfere(_worker: int) -> None:
        for statement in ("TRUNCATE goods", "ALTER TABLE goods ALTER quantity TYPE numeric"):
            with pytest.raises(asyncpg.LockNotAvailableError):
                await goods.at_source.execute(f"SET lock_timeout = '50ms'; {statement}")
            refused.append(statement)

    copied = await goods.copy(throttle=interfere, workers=1)
    assert refused
    assert copied.rows == {"goods": 5_000}


@pytest.mark.usefixtures("short_ranges")
async def test_the_log_says_that_copied_rows_came_from_an_origin(goods: Homes) -> None:
    """So that a stream out of the target, or another consumer with origin = none, does not send them on."""
    admin = goods.at_target
    await admin.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    await admin.execute("SELECT pg_create_logical_replication_slot('copy_test', 'pgoutput')")
    try:
        await goods.copy()
        peek = "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('copy_test', NULL, NULL, 'proto_version', '4', 'publication_names', 'everything', 'origin', $1)"
        assert await admin.fetchval(peek, "none") == 0
        assert await admin.fetchval(peek, "any") > 5_000
    finally:
        await admin.execute("SELECT pg_drop_replication_slot('copy_test')")


async def test_a_role_that_row_level_security_holds_is_refused_and_never_copies_nothing(
    goods: Homes, postgres_server: PostgresServer
) -> None:
    await goods.at_source.execute(
        "CREATE ROLE held_by_rls LOGIN PASSWORD 'for-tests-only'; GRANT USAGE ON SCHEMA shared TO held_by_rls;"
        "GRANT SELECT ON goods TO held_by_rls; ALTER TABLE goods ENABLE ROW LEVEL SECURITY"
    )
    url = parse(postgres_server.dsn(goods.source.cell, user="held_by_rls", password="for-tests-only"))
    held = Home(TENANT, "cell", Tier.SHARED, "shared", url)
    try:
        with pytest.raises(NotBypassingError):
            async with reading(held, None, Warrant()):
                pass
        connection = await asyncpg.connect(url.render_as_string(hide_password=False))
        try:
            assert await connection.fetchval("SELECT count(*) FROM shared.goods") == 0
            await connection.execute("SET row_security = off")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetchval("SELECT count(*) FROM shared.goods")
        finally:
            await connection.close()
    finally:
        await goods.at_source.execute("DROP OWNED BY held_by_rls; DROP ROLE held_by_rls")
