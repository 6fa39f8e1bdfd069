"""What a cell's database really enforces, read from pg_catalog: nobody's list of tables can be out of date.

Each function returns what is wrong, as sentences about one subject; nothing wrong: an empty list. Run as the server's
administrator.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import msgspec

from strata.platform.database.addresses import libpq
from strata.tenancy.cell.engines import Cell

if TYPE_CHECKING:
    from sqlalchemy import URL

_LOGIN_TIMEOUT_S = 10.0
_PUBLIC = "PUBLIC"


class Weakness(msgspec.Struct, frozen=True):
    subject: str
    """A table, role, function or database."""
    problem: str

    def __str__(self) -> str:
        return f"{self.subject} {self.problem}"


@asynccontextmanager
async def application(cell: Cell) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection as the application's role, into no tenant."""
    connection = await asyncpg.connect(libpq(_with_sslmode(cell.url)), timeout=_LOGIN_TIMEOUT_S, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close(timeout=_LOGIN_TIMEOUT_S)


def _with_sslmode(url: URL) -> URL:
    """SQLAlchemy's asyncpg dialect says `ssl` for what libpq, and asyncpg itself, call `sslmode`."""
    query = dict(url.query)
    if "ssl" in query:
        query["sslmode"] = query.pop("ssl")
    return url.set(query=query)


# Every relation in a schema that holds tenants' tables, with all that keeps one tenant's rows from another.
_TABLES = """
SELECT n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.relispartition AS is_partition,
       c.relrowsecurity AS rls, c.relforcerowsecurity AS forced,
       'security_invoker=true' = ANY (coalesce(c.reloptions, '{}')) AS as_invoker,
       CASE WHEN n.nspname ~ '^t_[0-9a-f]{32}$' THEN n.nspname::text ELSE (SELECT app_role::text FROM strata.cell) END AS role,
       ARRAY(SELECT DISTINCT coalesce(r.rolname::text, 'PUBLIC')
             FROM aclexplode(c.relacl) g LEFT JOIN pg_roles r ON r.oid = g.grantee
             WHERE g.grantee <> c.relowner) AS grantees,
       ARRAY(SELECT DISTINCT g.privilege_type
             FROM aclexplode(c.relacl) g WHERE g.grantee <> c.relowner) AS privileges,
       ARRAY(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid AND p.polpermissive) AS policies,
       (SELECT p.polcmd = '*' AND p.polroles = '{0}'
               AND pg_get_expr(p.polqual, p.polrelid) = wall.expression
               AND pg_get_expr(p.polwithcheck, p.polrelid) = wall.expression
        FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant_wall') AS walled,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
        FROM pg_constraint pk, unnest(pk.conkey) WITH ORDINALITY AS k (attnum, place), pg_attribute a
        WHERE pk.conrelid = c.oid AND pk.contype = 'p' AND a.attrelid = c.oid AND a.attnum = k.attnum) AS key,
       ARRAY(SELECT i.indexrelid::regclass::text FROM pg_index i
             WHERE i.indrelid = c.oid AND i.indisunique AND NOT EXISTS (
                 SELECT FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum = i.indkey[0] AND a.attname = 'tenant_id')) AS global_uniques,
       ARRAY(SELECT f.conname::text FROM pg_constraint f
             WHERE f.conrelid = c.oid AND f.contype = 'f' AND NOT EXISTS (
                 SELECT FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum = f.conkey[1] AND a.attname = 'tenant_id')) AS loose_references
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN strata.revision ledger ON ledger.schema_name = n.nspname AND n.nspname <> 'strata'
CROSS JOIN LATERAL (
    SELECT format('(tenant_id = ( SELECT strata.tenant(%L::text) AS tenant))', n.nspname) AS expression) wall
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND ($1::text IS NULL OR n.nspname = $1)
ORDER BY n.nspname, c.relname
"""
_DML = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})


async def count_tenant_tables(admin: asyncpg.Connection) -> int:
    return sum(row["kind"] in {"r", "p"} and not row["is_partition"] for row in await admin.fetch(_TABLES, None))


async def table_weaknesses(admin: asyncpg.Connection, schema: str | None = None) -> list[Weakness]:
    """Of every table, view and foreign table in every schema of the cell that holds tenants, or in one of them."""
    return [
        Weakness(f"{row['schema']}.{row['name']}", problem)
        for row in await admin.fetch(_TABLES, schema)
        for problem in _problems(row)
    ]


def _problems(row: asyncpg.Record) -> Iterator[str]:
    match row["kind"]:
        case "v":
            if not row["as_invoker"]:
                yield "is a view that runs as its owner: make it WITH (security_invoker)"
        case "m" | "f":
            yield "is a materialised view or foreign table, which row-level security cannot guard: drop it"
        case _:
            yield from _row_security(row)
            yield from _grants(row)
            yield from _keys(row)


def _row_security(row: asyncpg.Record) -> Iterator[str]:
    if not row["rls"]:
        yield "has row-level security off"
    if not row["forced"]:
        yield "does not force row-level security on its owner"
    if row["is_partition"]:
        if row["policies"]:
            yield "is a partition with a policy of its own: it must be reached through its table alone"
    elif not row["walled"]:
        yield "lacks the policy tenant_wall, or has an altered one"
    elif extra := sorted(set(row["policies"]) - {"tenant_wall"}):
        yield f"has a policy beside tenant_wall ({', '.join(extra)}), which lets more rows through"


def _grants(row: asyncpg.Record) -> Iterator[str]:
    allowed = set() if row["is_partition"] else {row["role"]}
    if strangers := sorted(set(row["grantees"]) - allowed):
        yield f"is granted to {', '.join(strangers)}"
    if excess := sorted(set(row["privileges"]) - _DML):
        yield f"is granted for more than reading and writing rows ({', '.join(excess)})"


def _keys(row: asyncpg.Record) -> Iterator[str]:
    if row["key"] != ["tenant_id", "id"]:
        yield "has another primary key than (tenant_id, id)"
    if row["global_uniques"]:
        yield f"is unique across tenants by {', '.join(row['global_uniques'])}"
    if row["loose_references"]:
        yield f"refers across tenants by {', '.join(row['loose_references'])}"


_ROLES = """
SELECT r.rolname::text AS name, r.rolname = $1 AS is_app,
       r.rolsuper AS superuser, r.rolbypassrls AS bypassrls, r.rolcreatedb AS createdb, r.rolcreaterole AS createrole,
       r.rolreplication AS replication, r.rolcanlogin AS login,
       (SELECT count(*) FROM pg_shdepend d
        WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'o') AS owned,
       ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
             WHERE m.member = r.oid AND g.rolname !~ '^t_[0-9a-f]{32}$') AS member_of,
       ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
             WHERE m.member = r.oid AND to_jsonb(m) ->> 'inherit_option' = 'true') AS inherits
FROM pg_roles r
WHERE r.rolname = $1 OR r.oid IN (
    SELECT m.roleid FROM pg_auth_members m JOIN pg_roles app ON app.oid = m.member WHERE app.rolname = $1)
ORDER BY r.rolname
"""


async def role_weaknesses(admin: asyncpg.Connection, app_role: str) -> list[Weakness]:
    """Of the application's role and the tenants' roles it may take on, in the whole cluster."""
    rows = await admin.fetch(_ROLES, app_role)
    if not any(row["is_app"] for row in rows):
        return [Weakness(f"role {app_role}", "does not exist")]
    return [Weakness(f"role {row['name']}", problem) for row in rows for problem in _role_problems(row)]


def _role_problems(row: asyncpg.Record) -> Iterator[str]:
    for attribute in ("superuser", "bypassrls", "createdb", "createrole", "replication"):
        if row[attribute]:
            yield f"has {attribute.upper()}"
    if row["login"] and not row["is_app"]:
        yield "may log in, though it is a tenant's"
    if row["owned"]:
        yield f"owns {row['owned']} object(s), and owners can lift row-level security"
    if row["member_of"]:
        yield f"is a member of {', '.join(row['member_of'])}"
    if row["inherits"]:
        yield f"inherits the rights of {len(row['inherits'])} role(s) instead of taking them on one at a time"


# What lockdown.sql takes away. A later PostgreSQL, or a hand, may have given it back.
_OPEN_FUNCTIONS = """
SELECT p.oid::regprocedure::text AS subject
FROM pg_proc p
WHERE p.pronamespace = 'pg_catalog'::regnamespace
  AND (p.proname ~ '^(lo_|pg_advisory_|pg_try_advisory_|pg_logical_emit_message)'
       OR p.proname IN ('loread', 'lowrite', 'pg_notify', 'pg_stat_get_activity', 'pg_stat_get_backend_activity',
                        'pg_lock_status', 'pg_cancel_backend', 'pg_terminate_backend', 'pg_export_snapshot',
                        'pg_prepared_statement', 'pg_cursor'))
  AND has_function_privilege($1, p.oid, 'EXECUTE')
ORDER BY 1
"""
_OPEN_ELSEWHERE = """
SELECT 'database ' || current_database() AS subject, 'lets the application make temporary objects' AS problem
WHERE has_database_privilege($1, current_database(), 'TEMPORARY')
UNION ALL
SELECT 'database ' || current_database(), 'lets the application make schemas'
WHERE has_database_privilege($1, current_database(), 'CREATE')
UNION ALL
SELECT 'schema public', 'is open to the application'
WHERE has_schema_privilege($1, 'public', 'USAGE') OR has_schema_privilege($1, 'public', 'CREATE')
UNION ALL
SELECT 'language plpgsql', 'is open to the application'
WHERE has_language_privilege($1, 'plpgsql', 'USAGE')
UNION ALL
SELECT 'strata.' || c.relname, 'can be read or written by the application'
FROM pg_class c
WHERE c.relnamespace = 'strata'::regnamespace AND c.relkind IN ('r', 'p', 'v')
  AND has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
UNION ALL
SELECT 'function ' || p.oid::regprocedure, 'is SECURITY DEFINER without a search_path that ends in pg_temp'
FROM pg_proc p
WHERE p.pronamespace = 'strata'::regnamespace AND p.prosecdef
  AND NOT EXISTS (SELECT FROM unnest(p.proconfig) setting WHERE setting ~ '^search_path=.*pg_temp"?$')
UNION ALL
SELECT 'function ' || p.oid::regprocedure, 'runs as its owner, past every policy: make it SECURITY INVOKER'
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'strata')
UNION ALL
SELECT 'role ' || r.rolname, 'may set backtrace_functions, and so say which tenant it has entered'
FROM pg_roles r
WHERE (r.rolname = $1 OR r.rolname ~ '^t_[0-9a-f]{32}$') AND NOT r.rolsuper
  AND has_parameter_privilege(r.oid, 'backtrace_functions', 'SET')
UNION ALL
SELECT 'event trigger strata_refuse_ddl', 'is missing or disabled: the application can run DROP OWNED'
WHERE NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = 'strata_refuse_ddl' AND evtenabled <> 'D')
"""


async def lockdown_gaps(admin: asyncpg.Connection, app_role: str) -> list[Weakness]:
    """Ways around the door that the application has in this database; every role has what PUBLIC has."""
    functions = [
        Weakness(f"function {row['subject']}", "can be called by the application")
        for row in await admin.fetch(_OPEN_FUNCTIONS, app_role)
    ]
    elsewhere = [Weakness(row["subject"], row["problem"]) for row in await admin.fetch(_OPEN_ELSEWHERE, app_role)]
    return functions + elsewhere


class DoorState(msgspec.Struct, frozen=True):
    """What the cell compares callers with."""

    approved_timeline: str
    timeline: str | None
    """The one it runs on; None: it is a standby."""
    ipad: str
    opad: str

    def holds(self, cell: Cell) -> bool:
        """Whether the cell's secret is the one that the catalog has."""
        return (self.ipad, self.opad) == cell.secret.padded()


_DOOR = """
SELECT c.timeline, encode(s.ipad, 'hex') AS ipad, encode(s.opad, 'hex') AS opad,
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS running
FROM strata.cell c, strata.secret s
"""


async def door_state(admin: asyncpg.Connection) -> DoorState:
    row = (await admin.fetch(_DOOR))[0]
    return DoorState(row["timeline"], row["running"], row["ipad"], row["opad"])
