"""Tables that trip movers: described as they are, copied and rebuilt, and then the same on both sides."""

from __future__ import annotations

import pytest

from strata.migrator.fitness import differences
from strata.migrator.indexes import build
from strata.migrator.sequences import advance_sequences
from strata.migrator.tables import copy_order, describe
from strata.migrator.target import Target
from strata.migrator.verifier import Verifier
from strata.tenancy.model import Tier
from tests.builders.copying import NEIGHBOUR, TENANT, Homes, homes
from tests.servers import PostgresServer

TYPES = """
CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy');
CREATE TYPE place AS (aisle int, shelf text);
CREATE DOMAIN code AS text CHECK (length(VALUE) < 9);
CREATE TABLE "Odd ""Names"" ON t" (
    tenant_id uuid NOT NULL, "Id" int NOT NULL, "select" text,
    price numeric(20, 6), ratio float8, small real, flag boolean, body bytea, document jsonb, raw json,
    day date, at timestamptz, local timestamp, clock timetz, span interval,
    numbers int[], words text[], grid numeric[][], during tstzrange, many int4multirange,
    host inet, net cidr, mac macaddr, bits bit(5), varied varbit, "char" "char", fixed char(6), short varchar(4),
    point point, search tsvector, cost money, lsn pg_lsn, path jsonpath, kind regclass,
    feeling mood, feelings mood[], spot place, spots place[], label code, note name,
    PRIMARY KEY (tenant_id, "Id"));
"""

VALUES = f"""
INSERT INTO "Odd ""Names"" ON t" (tenant_id, "Id") VALUES ('{TENANT}', 1), ('{TENANT}', 10), ('{NEIGHBOUR}', 1);
INSERT INTO "Odd ""Names"" ON t" VALUES ('{TENANT}', 2, '',
    'NaN', '-0', '1e-40', false, '\\x00ff5c0a', '{{"a": [1.0, null, "\\u00e9"], "b": {{}}}}', '{{"a":  1, "a": 2}}',
    'infinity', '-infinity', '4713-01-01 BC', '23:59:60+14', '-1 mon 3 days -00:00:01.5',
    '[0:1]={{1,NULL}}', '{{"",NULL,"NULL","a\\"b"}}', '{{{{1.00,2}},{{NaN,0}}}}', '(,infinity]', '{{[1,3),[5,9)}}',
    '::1', '10.0.0.0/8', '08:00:2b:01:02:03', B'10101', B'', '\\001', 'ab', 'four',
    '(NaN,-0)', 'a:1A fat:2', '12.34', '16/B374D848', '$.a[*]', 'place',
    'so so', '{{happy,sad}}', '(1,"a b")', '{{"(2,)"}}', 'c1', 'n'),
  ('{TENANT}', 9, E'tab\\t newline\\n \\\\N backslash\\\\ \\r''quote"',
    '12345678901234.123456', 'Infinity', '0.1', true, '', 'null', 'null',
    '0044-03-15 BC', '2026-11-22 20:00:00.123456+00', 'infinity', '00:00-14', '178000000 years',
    '{{}}', '{{}}', '{{}}', 'empty', '{{}}', '10.0.0.1/8', '::/0', 'ff:ff:ff:ff:ff:ff', B'00000', B'1', '', '', '',
    '(1,2)', '', '-0.01', '0/0', 'strict $', NULL,
    'happy', '{{}}', '(,)', NULL, '', '');
"""

STRUCTURES = """
CREATE TABLE warehouse (tenant_id uuid, id int, name text, main_bin int, PRIMARY KEY (tenant_id, id));
CREATE TABLE bin (tenant_id uuid, id int, warehouse_id int NOT NULL, twin int, code text,
    PRIMARY KEY (tenant_id, id), CONSTRAINT uq_code UNIQUE NULLS NOT DISTINCT (tenant_id, code) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT fk_bin_warehouse FOREIGN KEY (tenant_id, warehouse_id) REFERENCES warehouse ON DELETE CASCADE,
    CONSTRAINT fk_bin_twin FOREIGN KEY (tenant_id, twin) REFERENCES bin DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE warehouse ADD CONSTRAINT fk_warehouse_bin FOREIGN KEY (tenant_id, main_bin) REFERENCES bin DEFERRABLE;
CREATE TABLE booking (tenant_id uuid, id bigint GENERATED ALWAYS AS IDENTITY, bin_id int, during int4range,
    PRIMARY KEY (tenant_id, id), FOREIGN KEY (tenant_id, bin_id) REFERENCES bin,
    CONSTRAINT ex_during EXCLUDE USING gist (during WITH &&) WHERE (bin_id IS NULL));
CREATE TABLE ledger (tenant_id uuid NOT NULL, id int NOT NULL, bin_id int, at date NOT NULL, n int,
    PRIMARY KEY (tenant_id, at, id), CONSTRAINT fk_ledger_bin FOREIGN KEY (tenant_id, bin_id) REFERENCES bin)
    PARTITION BY RANGE (at);
CREATE TABLE ledger_old PARTITION OF ledger FOR VALUES FROM (MINVALUE) TO ('2026-01-01') PARTITION BY HASH (tenant_id);
CREATE TABLE ledger_old_0 PARTITION OF ledger_old FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE ledger_old_1 PARTITION OF ledger_old FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE ledger_new PARTITION OF ledger DEFAULT;
ALTER TABLE ledger ADD CONSTRAINT uq_ledger UNIQUE (tenant_id, at, n) INCLUDE (bin_id);
CREATE INDEX ix_ledger_n ON ledger (tenant_id, n DESC NULLS LAST) WHERE n > 0;
CREATE INDEX "ix Lower ON ""x"" y" ON bin (tenant_id, lower(code) text_pattern_ops);
CREATE INDEX ix_gin ON booking USING gist (during);
CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := NEW.name || '!'; RETURN NEW; END $$;
CREATE TRIGGER bump BEFORE INSERT ON warehouse FOR EACH ROW EXECUTE FUNCTION bump();
"""

STRUCTURE_ROWS = """
INSERT INTO warehouse SELECT t, i, 'w' || i FROM generate_series(1, 20) i;
INSERT INTO bin SELECT t, i, i % 20 + 1, 201 - i, CASE WHEN i > 1 THEN 'B' || i END FROM generate_series(1, 200) i;
UPDATE warehouse SET main_bin = id WHERE tenant_id = t;
INSERT INTO booking (tenant_id, bin_id, during) SELECT t, i, int4range(i, i + 9) FROM generate_series(1, 50) i;
INSERT INTO ledger SELECT t, i, i % 200 + 1, date '2025-06-01' + i, i FROM generate_series(1, 400) i;
"""


async def _equal(made: Homes) -> None:
    found = await Verifier(made.source, made.target).compare(None, None)
    assert found.differences == ()
    for table in (await made.tables()).tables:
        assert await made.rows(made.target, table.name) == await made.rows(made.source, table.name)
        assert await made.rows(made.source, table.name), table.name


async def test_every_type_and_every_odd_value_of_it(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    # Other OIDs than in the source: what breaks names of objects in binary, and would composites before PostgreSQL 14.
    shift = "CREATE TYPE other1 AS ENUM ('x'); CREATE TYPE other2 AS (x int);"
    async with homes(postgres_server, second_postgres_server, TYPES, target_ddl=shift + TYPES) as made:
        await made.at_source.execute(VALUES)
        await made.copy()
        await _equal(made)
        assert len(await made.rows(made.target, 'Odd "Names" ON t')) == 4


async def test_binary_is_kept_for_tables_that_allow_it(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    async with homes(postgres_server, second_postgres_server, TYPES) as made:
        columns = {each.name: each for each in (await made.tables()).tables[0].columns}
        text_only = {name for name, column in columns.items() if not column.binary}
        assert text_only == {"kind", "feelings", "spot", "spots", "label"}
        assert columns["feeling"].enum


async def test_dropped_generated_and_shuffled_columns_shift_nothing(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    source = """
    CREATE TABLE things (gone text, tenant_id uuid NOT NULL, a text, gone_too int, id int NOT NULL, b text,
        twice int GENERATED ALWAYS AS (id * 2) STORED, c text DEFAULT 'c', PRIMARY KEY (tenant_id, id));
    ALTER TABLE things DROP COLUMN gone, DROP COLUMN gone_too;
    ALTER TABLE things ADD COLUMN late text DEFAULT 'later'
    """
    target = """
    CREATE TABLE things (id int NOT NULL, late text DEFAULT 'later', c text DEFAULT 'c', b text, tenant_id uuid NOT NULL,
        a text, twice int GENERATED ALWAYS AS (id * 2) STORED, PRIMARY KEY (tenant_id, id))
    """
    async with homes(postgres_server, second_postgres_server, source, target_ddl=target) as made:
        await made.at_source.execute(
            f"INSERT INTO things SELECT '{TENANT}', 'a' || i, i, 'b' || i FROM generate_series(1, 100) i"
        )
        await made.copy()
        await _equal(made)
        arrived = await made.at_target.fetchrow("SELECT a, b, c, late, twice FROM things WHERE id = 7")
        assert tuple(arrived or ()) == ("a7", "b7", "c", "later", 14)


@pytest.mark.parametrize("tier", list(Tier))
async def test_cycles_partitions_triggers_identity_and_exclusion(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer, tier: Tier
) -> None:
    async with homes(postgres_server, second_postgres_server, STRUCTURES, target_tier=tier) as made:
        # Across the tenants this would clash on the exclusion constraint, were it not partial.
        for tenant in (TENANT, NEIGHBOUR):
            rows = STRUCTURE_ROWS.replace("SELECT t,", f"SELECT '{tenant}'::uuid,").replace("= t", f"= '{tenant}'")
            await made.at_source.execute(rows)
        before = await describe(made.at_target, made.target.schema_name)
        await made.copy()
        await _equal(made)
        after = await describe(made.at_target, made.target.schema_name)
        assert list(differences(await made.tables(), after)) == []
        assert list(differences(before, after)) == []
        # Partitions too have each of their table's indexes, once.
        per_leaf = "SELECT indrelid::regclass::text, count(*) FROM pg_index WHERE indrelid::regclass::text ~ '^ledger_' GROUP BY 1"
        assert {tuple(row) for row in await made.at_target.fetch(per_leaf)} == {
            (name, 3) for name in ("ledger_old", "ledger_old_0", "ledger_old_1", "ledger_new")
        }
        # The trigger did not fire on what was copied, and fires on what comes after.
        fired = await made.at_target.fetchval("INSERT INTO warehouse VALUES ($1, 99, 'new') RETURNING name", TENANT)
        assert fired == "new!"


async def test_sequences_are_advanced_and_never_turned_back(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    ddl = (
        "CREATE TABLE things (tenant_id uuid, id int GENERATED BY DEFAULT AS IDENTITY, n bigserial, PRIMARY KEY (tenant_id, id));"
        'CREATE SEQUENCE "Down" INCREMENT -1; CREATE SEQUENCE never'
    )
    async with homes(postgres_server, second_postgres_server, ddl) as made:
        await made.at_source.execute(
            f"INSERT INTO things (tenant_id) SELECT '{TENANT}' FROM generate_series(1, 5);"
            """SELECT nextval('"Down"'), nextval('"Down"')"""
        )
        await made.at_target.execute("SELECT setval('things_n_seq', 70)")
        tables = await made.tables()
        assert await advance_sequences(made.at_source, made.at_target, tables, made.target) == 2
        nexts = """SELECT nextval('things_id_seq'), nextval('things_n_seq'), nextval('"Down"'), nextval('never')"""
        assert tuple(await made.at_target.fetchrow(nexts) or ()) == (6, 71, -3, 1)


async def test_a_build_that_died_is_finished_by_the_next(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    async with homes(postgres_server, second_postgres_server, STRUCTURES, target_tier=Tier.SCHEMA) as made:
        tables, target = await made.tables(), Target(made.target)
        for stop_after in range(0, 40, 7):
            await target.strip()
            done = 0

            def die(_step: str, limit: int = stop_after) -> None:
                nonlocal done
                done += 1
                if done > limit:
                    raise InterruptedError

            try:
                await build(made.target, tables, progress=die)
            except InterruptedError:
                if stop_after % 2:
                    await target.strip()
            await build(made.target, tables)
        assert await target.strip() > 0
        left = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p')"
        assert await made.at_target.fetchval(left, made.target.schema_name) == 0


def test_order_puts_referred_tables_first_and_opens_cycles_by_name() -> None:
    references = {"line": {"order", "product"}, "order": {"customer"}, "customer": set(), "product": {"product"}}
    assert copy_order(references) == ["customer", "order", "product", "line"]
    assert copy_order({"b": {"a"}, "a": {"c"}, "c": {"b"}, "d": set()}) == ["d", "a", "b", "c"]
