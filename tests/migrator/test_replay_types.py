"""Values arrive as they are, whatever their type; columns and tables with peculiarities."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.builders.streams import NEW, Crossing, crossing
from tests.servers import PostgresServer

TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'it''s "fine"', 'happy');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN small AS int CHECK (VALUE < 100000);
    CREATE TABLE "Odd ""name"" 100%" (
        tenant_id uuid NOT NULL, id bigint NOT NULL,
        "column ""1"" %s" text, "SELECT" text, b bytea, n numeric, d numeric(12,4), f float8, r real,
        dropped int, day date, at timestamptz, plain timestamp, lasts interval, t time, tz timetz,
        flag boolean, j jsonb, js json, ints int[], words text[], grid int[], moods mood[], m mood, p pair, s small,
        span int4range, spans tstzmultirange, net inet, mac macaddr, bits bit(5), vbits bit varying, fixed char(6),
        vc varchar(20), money money, pt point, box box, vec tsvector, q tsquery, path jsonpath, c "char", nm name,
        doubled bigint GENERATED ALWAYS AS (id * 2) STORED,
        always bigint GENERATED ALWAYS AS IDENTITY,
        PRIMARY KEY (tenant_id, id));
    ALTER TABLE "Odd ""name"" 100%" DROP COLUMN dropped
"""
TABLE = 'Odd "name" 100%'
ROWS = r"""
    INSERT INTO "Odd ""name"" 100%"
      (tenant_id, id, "column ""1"" %s", "SELECT", b, n, d, f, r, day, at, plain, lasts, t, tz, flag, j, js, ints, words,
       grid, moods, m, p, s, span, spans, net, mac, bits, vbits, fixed, vc, money, pt, box, vec, q, path, c, nm)
    VALUES
    ($tenant, 1, E'tab\tnl\nback\\slash\r"''\u20ac\x01', '', '\x00ff0a5c', 'NaN', 1.5, 'NaN', '-Infinity', 'infinity', '-infinity',
     'infinity', '1 year 2 mons -3 days 04:05:06.789', '24:00', '12:00+05:30', true, '{"a": [1, null, "\u00e9"], "n": 1e400}',
     '{"b":1,   "b":2}', '{1,NULL,3}', '{"a,b","NULL",NULL,"","q\"uote"}', '{{1,2},{3,4}}',
     ARRAY['sad', 'it''s "fine"']::mood[], 'happy', ROW(1, 'x,"y'), 5, '[1,10)', '{[2020-01-01,2021-01-01),[2022-01-01,)}',
     '10.0.0.0/8', '08:00:2b:01:02:03', '10101', '1', 'ab', 'v ', 12.34, '(1.1,2)', '((1,1),(0,0))', 'a:1 b:2', 'a & b',
     '$.a[*]', 'x', 'nm'),
    ($tenant, 2, NULL, NULL, '', 'Infinity', NULL, 1e-310, 3.4e38, '4713-01-01 BC', '294276-01-01', NULL, NULL, NULL, NULL,
     false, 'null', 'null', '{}', '{}', '[0:1]={5,6}', '{}', NULL, NULL, NULL, 'empty', '{}', '::1', NULL, NULL, '',
     '', '', '-92233720368547758.08', NULL, NULL, '', NULL, NULL, NULL, '')
"""


@pytest.fixture
async def odd(postgres_server: PostgresServer, second_postgres_server: PostgresServer) -> AsyncIterator[Crossing]:
    async with crossing((postgres_server, second_postgres_server), TYPES, TABLE) as made:
        yield made


async def test_every_type_arrives_as_it_is(odd: Crossing) -> None:
    rows = ROWS.replace("$tenant", f"'{odd.tenant}'")
    async with odd.replay() as replay:
        await odd.source.execute(rows)
        await odd.settle(replay)
        await odd.assert_equal()
        await odd.source.execute(
            """UPDATE "Odd ""name"" 100%" SET "SELECT" = 'touched', f = 0.1 + 0.2, d = 99999999.9999"""
        )
        await odd.settle(replay)
    await odd.assert_equal()


async def test_an_identity_that_is_always_generated_follows_the_source(odd: Crossing) -> None:
    async with odd.replay() as replay:
        await odd.source.execute('INSERT INTO "Odd ""name"" 100%" (tenant_id, id) VALUES ($1, 9)', odd.tenant)
        await odd.settle(replay)
        await odd.source.execute('UPDATE "Odd ""name"" 100%" SET always = DEFAULT, nm = $1', "n")
        await odd.settle(replay)
    await odd.assert_equal()


async def test_null_and_empty_stay_apart(odd: Crossing) -> None:
    async with odd.replay() as replay:
        await odd.source.execute(
            'INSERT INTO "Odd ""name"" 100%" (tenant_id, id, vc, b) VALUES ($1, 1, NULL, NULL), ($1, 2, \'\', \'\')',
            odd.tenant,
        )
        await odd.settle(replay)
    found = await odd.target.fetch(f'SELECT vc, b FROM {NEW}."Odd ""name"" 100%" ORDER BY id')
    assert [tuple(row) for row in found] == [(None, None), ("", b"")]


WIDE = "CREATE TABLE wide (tenant_id uuid, {}, id int, PRIMARY KEY (tenant_id, id))".format(
    ", ".join(f"c{number} text" for number in range(600))
)


async def test_wide_rows_and_a_key_that_does_not_lead(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    async with crossing((postgres_server, second_postgres_server), WIDE, "wide") as made, made.replay() as replay:
        await made.source.execute("INSERT INTO wide (tenant_id, id, c0, c599) VALUES ($1, 1, 'a', 'z')", made.tenant)
        await made.source.execute("UPDATE wide SET c300 = repeat('w', 100), id = 2")
        await made.source.execute("UPDATE wide SET c301 = repeat('w', 100)")
        await made.settle(replay)
        await made.assert_equal()


PARTED = """
    CREATE TABLE entry (
        tenant_id uuid NOT NULL, id int NOT NULL, day date NOT NULL, text text, PRIMARY KEY (tenant_id, id, day)
    ) PARTITION BY RANGE (day);
    CREATE TABLE early PARTITION OF entry FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
    CREATE TABLE late PARTITION OF entry FOR VALUES FROM ('2026-01-01') TO (MAXVALUE)
"""
HASHED = """
    CREATE TABLE entry (
        tenant_id uuid NOT NULL, id int NOT NULL, day date NOT NULL, text text, PRIMARY KEY (tenant_id, id, day)
    ) PARTITION BY HASH (tenant_id);
    CREATE TABLE entry_p0 PARTITION OF entry FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE entry_p1 PARTITION OF entry FOR VALUES WITH (MODULUS 2, REMAINDER 1)
"""


async def test_partitions_may_be_cut_differently(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    servers = (postgres_server, second_postgres_server)
    async with crossing(servers, PARTED, "entry", target_ddl=HASHED) as made, made.replay() as replay:
        await made.source.execute(
            "INSERT INTO entry VALUES ($1, 1, '2025-05-05', 'a'), ($1, 2, '2026-05-05', 'b')", made.tenant
        )
        await made.source.execute("UPDATE entry SET day = '2026-06-06' WHERE id = 1")
        await made.source.execute("UPDATE entry SET text = 'c'")
        await made.source.execute("DELETE FROM entry WHERE id = 2")
        await made.settle(replay)
        await made.assert_equal()


TIED = """
    CREATE TABLE parent (tenant_id uuid, id int, child_id int, PRIMARY KEY (tenant_id, id));
    CREATE TABLE child (
        tenant_id uuid, id int, parent_id int, place int, changes int NOT NULL DEFAULT 0, PRIMARY KEY (tenant_id, id),
        FOREIGN KEY (tenant_id, parent_id) REFERENCES parent ON DELETE CASCADE,
        UNIQUE (tenant_id, place) DEFERRABLE INITIALLY DEFERRED,
        CONSTRAINT apart EXCLUDE USING btree (tenant_id WITH =, parent_id WITH =, place WITH =));
    ALTER TABLE parent ADD FOREIGN KEY (tenant_id, child_id) REFERENCES child DEFERRABLE INITIALLY DEFERRED;
    CREATE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN NEW.changes := NEW.changes + 1; RETURN NEW; END';
    CREATE TRIGGER counted BEFORE INSERT OR UPDATE ON child FOR EACH ROW EXECUTE FUNCTION count_change()
"""


async def test_cycles_cascades_deferred_constraints_and_triggers(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    """Triggers and cascades have had their effect on the source; a second one on the target would be one too many."""
    servers = (postgres_server, second_postgres_server)
    async with crossing(servers, TIED, "parent", "child") as made, made.replay() as replay:
        async with made.source.transaction():
            await made.source.execute("INSERT INTO parent SELECT $1, i, i FROM generate_series(1, 3) i", made.tenant)
            await made.source.execute("INSERT INTO child SELECT $1, i, i, i FROM generate_series(1, 3) i", made.tenant)
        await made.source.execute("UPDATE child SET place = 4 - place")
        await made.source.execute("UPDATE parent SET child_id = NULL WHERE id = 2")
        await made.source.execute("DELETE FROM parent WHERE id = 2")
        await made.settle(replay)
        await made.assert_equal()
        assert len(await made.rows(made.target, NEW, "child")) == 2
