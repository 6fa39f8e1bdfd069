"""Every way we know from tenant A's transaction to B's rows. Each yields the tenant_id of the rows it reached."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from msgspec import Struct, field

from tests.builders.intruder import Outcome, named
from tests.builders.rows import Row, Table, insertion, sample
from tests.builders.scenes import Scene

DIVISION_BY_ZERO = "22012"
UNIQUE_VIOLATION = "23505"
FOREIGN_KEY = "23503"
UNKNOWN_TABLE = "42P01"


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
        (
            f"SELECT {x.b} FROM ts_stat($$SELECT array_to_tsvector(ARRAY[tenant_id::text]) FROM {x.theirs}$$)"
            f" WHERE word = {x.b}::text"
        ),
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
    # Without RETURNING, which asks the policy for a second opinion.
    "insert silently": lambda x: (insertion(x.table, x.fresh), f"SELECT {x.b}"),
    "update give silently": lambda x: (f"UPDATE {x.own} SET tenant_id = {x.b}", f"SELECT {x.b}"),
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
        (
            f"MERGE INTO {x.theirs} t USING (SELECT {x.b} AS b) v ON t.tenant_id = v.b WHEN MATCHED THEN DELETE"
            " RETURNING t.tenant_id"
        ),
    ),
}

ATTACKS = READS | WRITES

# What may stop an attack besides the walls: deleting own rows that others refer to; a schema one may not use is not
# searched.
OWN_TROUBLE = {
    "delete all": (FOREIGN_KEY,),
    "delete in a cte": (FOREIGN_KEY,),
    "search_path": (UNKNOWN_TABLE,),
}


def aims(scene: Scene) -> list[Aim]:
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
    # A unique index that objects has compared the row with the victim's: nothing before it stood in the way.
    return outcome.sqlstate in {DIVISION_BY_ZERO, UNIQUE_VIOLATION} or any(
        row[0] == scene.victim_id for row in outcome.rows
    )
