"""The verifier finds every difference and names it, finds none where there is none, and repeats no value."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from strata.migrator import ranges, verifier
from strata.migrator.verifier import Comparison, Difference, DifferenceKind, Verifier
from strata.platform.database.names import quoted
from strata.tenancy.model import Tier
from tests.builders.copying import NEIGHBOUR, TENANT, Homes, fill_goods, homes
from tests.servers import PostgresServer

VALUES = """
CREATE TABLE samples (
    tenant_id uuid, id int, words text, body bytea, ratio float8, price numeric, document jsonb, raw json, at timestamptz,
    span interval, numbers int[], during daterange, flag boolean, kind regclass, PRIMARY KEY (tenant_id, id));
"""
# Pairs that a careless comparison takes for equal: column, one value, the other.
ALIKE = [
    ("words", "NULL", "''"),
    ("words", "'a'", "'a '"),
    ("words", "E'a\\tb'", "'a  b'"),
    ("words", "U&'\\00e9'", "U&'e\\0301'"),
    ("body", r"'\x00'", r"'\x01'"),
    ("body", r"'\x'", "NULL"),
    ("body", r"decode(repeat('ab', 100000), 'hex')", r"set_bit(decode(repeat('ab', 100000), 'hex'), 777777, 0)"),
    ("ratio", "'-0'", "'0'"),
    ("ratio", "'NaN'", "NULL"),
    ("ratio", "0.1::float8 + 0.2::float8", "0.3"),
    ("price", "1.0", "1.00"),
    ("price", "'NaN'", "'Infinity'"),
    ("document", """'{"a": 1.0}'""", """'{"a": 1.00}'"""),
    ("document", """'{"a": null}'""", "'{}'"),
    ("raw", """'{"a": 1}'""", """'{"a":1}'"""),
    ("at", "'infinity'", "'-infinity'"),
    ("at", "'2026-01-01 00:00:00.000001Z'", "'2026-01-01Z'"),
    ("span", "'1 mon'", "'30 days'"),
    ("span", "'1 day'", "'24 hours'"),
    ("numbers", "'{1,NULL}'", "'{1}'"),
    ("numbers", "'[0:0]={1}'", "'{1}'"),
    ("during", "'empty'", "'(,)'"),
    ("flag", "false", "NULL"),
    ("kind", "'pg_class'", "'pg_type'"),
]


@pytest.fixture
async def goods(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Homes]:
    """6,000 rows of the tenant and of a neighbour in the source; the tenant's in a shared target, too, beside others."""
    monkeypatch.setattr(ranges, "FIRST_ROWS", 900)
    monkeypatch.setattr(ranges, "MOST_ROWS", 2_000)
    async with homes(postgres_server, second_postgres_server, target_tier=Tier.SHARED) as made:
        await fill_goods(made.at_source, 6_000)
        await fill_goods(made.at_target, 500, tenants=[NEIGHBOUR])
        await made.copy()
        yield made


async def compared(made: Homes) -> Comparison:
    return await Verifier(made.source, made.target).compare(None, None)


async def test_the_same_rows_are_equal_whoever_else_lives_there(goods: Homes) -> None:
    found = await compared(goods)
    assert found.equal
    assert found.rows == 6_000


@pytest.mark.parametrize(
    ("statement", "kind", "columns"),
    [
        ("UPDATE goods SET quantity = quantity # 4096 WHERE tenant_id = $1 AND id = 4321", DifferenceKind.CHANGED, ("quantity",)),
        ("UPDATE goods SET sku = 'SKU-4321', quantity = -1 WHERE tenant_id = $1 AND id = 4321", DifferenceKind.CHANGED, ("quantity", "sku")),
        ("DELETE FROM goods WHERE tenant_id = $1 AND id = 4321", DifferenceKind.MISSING, ()),
        ("INSERT INTO goods VALUES ($1, 4321000, 'secret-value')", DifferenceKind.EXTRA, ()),
        ("INSERT INTO goods VALUES ($1, -4321, 'secret-value')", DifferenceKind.EXTRA, ()),
    ],
)  # fmt: skip
async def test_a_changed_a_missing_and_an_extra_row_are_found_and_named(
    goods: Homes, statement: str, kind: DifferenceKind, columns: tuple[str, ...]
) -> None:
    await goods.at_target.execute(statement, TENANT)
    found = await compared(goods)
    assert not found.equal
    (difference,) = found.differences
    assert (difference.kind, difference.table, difference.columns) == (kind, "goods", columns)
    assert difference.key["id"] in {"4321", "4321000", "-4321"}
    assert "secret" not in msgspec.json.encode(found).decode().lower()


async def test_two_rows_that_swapped_their_values_are_both_named(goods: Homes) -> None:
    await goods.at_target.execute(
        "ALTER TABLE goods DROP CONSTRAINT uq_goods; UPDATE goods SET sku = CASE id WHEN 1 THEN 'sku-2' ELSE 'sku-1' END"
        f" WHERE tenant_id = '{TENANT}' AND id IN (1, 2)"
    )
    found = await compared(goods)
    assert sorted(each.key["id"] for each in found.differences) == ["1", "2"]


async def test_a_row_that_became_another_tenants_is_missing(goods: Homes) -> None:
    await goods.at_target.execute(
        "UPDATE goods SET tenant_id = gen_random_uuid() WHERE tenant_id = $1 AND id = 17", TENANT
    )
    assert (await compared(goods)).differences == (Difference(DifferenceKind.MISSING, "goods", {"id": "17"}),)


async def test_many_differences_are_all_counted_and_the_first_named(
    goods: Homes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "NAMED_PER_TABLE", 7)
    await goods.at_target.execute("DELETE FROM goods WHERE tenant_id = $1 AND id % 10 = 0", TENANT)
    found = await compared(goods)
    assert found.tables[0].differing_rows == 600
    assert len(found.differences) == 7
    assert (found.tables[0].source_rows, found.tables[0].target_rows) == (6_000, 5_400)


async def test_the_one_row_that_differs_is_found_in_a_table_that_nobody_has_analysed(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It seems to have one bucket's worth of rows: they are put into more before any is looked at by itself."""
    monkeypatch.setattr(verifier, "ROWS_LOOKED_AT", 700)
    async with homes(postgres_server, second_postgres_server) as made:
        for connection in (made.at_source, made.at_target):
            await connection.execute("ALTER TABLE goods SET (autovacuum_enabled = off)")
            await connection.execute(
                "INSERT INTO goods SELECT $1, i, 'sku-' || i, i FROM generate_series(1, 6000) i", TENANT
            )
        assert (await made.tables()).by_name["goods"].estimated_rows < verifier.ROWS_PER_BUCKET
        await made.at_target.execute("UPDATE goods SET quantity = -1 WHERE id = 4321")
        looked_at: list[int] = []
        hashes = verifier._Side.hashes

        async def counted(*given: Any) -> Any:  # noqa: ANN401 - of the method
            rows = await hashes(*given)
            looked_at.append(len(rows))
            return rows

        monkeypatch.setattr(verifier._Side, "hashes", counted)
        (difference,) = (await compared(made)).differences
        assert (difference.key, difference.columns) == ({"id": "4321"}, ("quantity",))
        assert 0 < max(looked_at) < 1_400


async def test_a_key_that_is_there_twice(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    """As a broken index lets it be: the target here has no primary key at all."""
    bare = "CREATE TABLE goods (tenant_id uuid NOT NULL, id bigint NOT NULL)"
    keyed = bare[:-1] + ", PRIMARY KEY (tenant_id, id))"
    async with homes(postgres_server, second_postgres_server, keyed, target_ddl=bare) as made:
        await made.at_source.execute("INSERT INTO goods VALUES ($1, 1), ($1, 2)".replace("$1", f"'{TENANT}'"))
        await made.at_target.execute("INSERT INTO goods VALUES ($1, 1), ($1, 1), ($1, 2)".replace("$1", f"'{TENANT}'"))
        assert (await compared(made)).differences == (Difference(DifferenceKind.DOUBLED, "goods", {"id": "1"}),)


async def test_tables_and_columns_that_one_side_alone_has(goods: Homes) -> None:
    for connection in (goods.at_source, goods.at_target):
        await connection.execute("CREATE TABLE empty_on_both (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))")
    await goods.at_target.execute("CREATE TABLE extra_rows (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))")
    await goods.at_target.execute("CREATE TABLE neighbours (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))")
    await goods.at_target.execute("INSERT INTO neighbours VALUES ($1, 1)", NEIGHBOUR)
    assert (await compared(goods)).equal
    await goods.at_target.execute("INSERT INTO extra_rows VALUES ($1, 1)", TENANT)
    await goods.at_source.execute("CREATE TABLE forgotten (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))")
    await goods.at_source.execute("INSERT INTO forgotten VALUES ($1, 1)", TENANT)
    await goods.at_source.execute("ALTER TABLE goods ADD COLUMN late text DEFAULT 'x'")
    found = await compared(goods)
    assert {(each.kind, each.table, each.columns) for each in found.differences} == {
        (DifferenceKind.TABLE, "extra_rows", ()),
        (DifferenceKind.TABLE, "forgotten", ()),
        (DifferenceKind.COLUMN, "goods", ("late",)),
    }
    assert not found.equal


@pytest.mark.parametrize(("column", "here", "there"), ALIKE)
async def test_values_that_look_alike(samples: Homes, column: str, here: str, there: str) -> None:
    for connection, value in ((samples.at_source, here), (samples.at_target, here)):
        await connection.execute(
            f"TRUNCATE samples; INSERT INTO samples (tenant_id, id, {column}) VALUES ('{TENANT}', 1, {value})"
        )
    assert (await compared(samples)).equal
    await samples.at_target.execute(f"UPDATE samples SET {column} = {there}")
    assert (await compared(samples)).differences == (
        Difference(DifferenceKind.CHANGED, "samples", {"id": "1"}, (column,)),
    )


@pytest.fixture(scope="module")
async def samples(postgres_server: PostgresServer, second_postgres_server: PostgresServer) -> AsyncIterator[Homes]:
    """A table with a column of each type that has look-alikes. The databases' settings differ in every way that shows."""
    async with homes(postgres_server, second_postgres_server, VALUES) as made:
        for name, value in {
            "DateStyle": "SQL, DMY",
            "IntervalStyle": "iso_8601",
            "TimeZone": "Asia/Kathmandu",
            "extra_float_digits": "-10",
            "bytea_output": "escape",
            "search_path": "pg_catalog",
            "row_security": "on",
        }.items():
            await made.at_target.execute(f"ALTER DATABASE {quoted(made.target.cell)} SET {name} = '{value}'")
        yield made


async def test_it_reads_the_snapshots_it_is_given(goods: Homes) -> None:
    async with goods.snapshot() as at_source, goods.snapshot(goods.target) as at_target:
        for connection in (goods.at_source, goods.at_target):
            await connection.execute("DELETE FROM goods WHERE id = 5; UPDATE goods SET quantity = 99 WHERE id = 6")
        await goods.at_target.execute("DELETE FROM goods")
        assert (await Verifier(goods.source, goods.target).compare(at_source, at_target)).equal
        assert not (await Verifier(goods.source, goods.target).compare(at_source, None)).equal


async def test_resting_it_compares_the_same_rows(goods: Homes) -> None:
    asked = []

    def rest(worker: int, worked_s: float) -> float:
        asked.append(worker)
        return worked_s

    await goods.at_target.execute("UPDATE goods SET quantity = 99 WHERE id = 6")
    found = await Verifier(goods.source, goods.target, rest=rest).compare(None, None)
    plainly = await Verifier(goods.source, goods.target).compare(None, None)
    assert (found.tables, found.differences) == (plainly.tables, plainly.differences)
    assert set(asked) == {0}
