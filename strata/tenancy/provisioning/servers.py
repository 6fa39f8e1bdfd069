"""Prepare a PostgreSQL cluster to hold cells: check what it can do, make the application's role."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from strata.platform.database.administration import administrator
from strata.platform.database.names import literal, quoted
from strata.platform.errors import ConfigurationError, ConflictError
from strata.tenancy.cell.inspection import door_state
from strata.tenancy.provisioning.timelines import require_newest

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy import URL

    from strata.tenancy.catalog.registry import Registry

OLDEST_VERSION = 150000


async def add_server(
    registry: Registry,
    name: str,
    url: URL,
    *,
    region: str,
    role_prefix: str,
    actor: str,
    app_address: str | None = None,
    statement_timeout_ms: int = 30_000,
    capacity: int | None = None,
    plans: Sequence[str] | None = None,
    given_up: str | None = None,
) -> None:
    """Make the cluster at `url` (its administrator's) one of ours; again with the same name, renew its password.

    The application's role is made before the row: a death in between leaves a role without privileges, which the next
    try takes over. A copy of its cells that a fail-over has left behind is refused (OldTimelineError, AnotherCopyError):
    its own row lets tenants in. `given_up`: see `require_newest`.
    """
    await _require_newest_copies(registry, name, url, given_up)
    role = f"{role_prefix}_app"
    password = secrets.token_urlsafe(32)
    async with administrator(url) as admin, admin.transaction():
        await _require_fitness(admin)
        # Roles belong to the cluster: two that add it at once take turns.
        await admin.execute("SELECT pg_advisory_xact_lock(7527)")
        exists = await admin.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
        known_as = await admin.fetchval(
            "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1", role
        )
        if known_as not in {None, name}:
            # A second name would renew the password under the first one's feet.
            message = f"This cluster is registered already, as server «{known_as}»."
            raise ConflictError(message)
        verb = "ALTER" if exists else "CREATE"
        await admin.execute(
            f"{verb} ROLE {quoted(role)} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION"
            f" PASSWORD {literal(password)}"
        )
        await admin.execute(f"COMMENT ON ROLE {quoted(role)} IS {literal(name)}")
        for setting, value in (
            ("statement_timeout", f"{statement_timeout_ms}ms"),
            ("idle_in_transaction_session_timeout", "120s"),
            ("lock_timeout", "10s"),
            # Nothing a tenant's request runs is long enough to win back what compiling costs.
            ("jit", "off"),
        ):
            await admin.execute(f"ALTER ROLE {quoted(role)} SET {setting} = {literal(value)}")
    await registry.add_server(name, url, region, role, password, app_address, actor, capacity=capacity, plans=plans)


async def _require_newest_copies(registry: Registry, name: str, url: URL, given_up: str | None) -> None:
    rows = await registry.whole_cells_on(name)
    if not rows:
        return
    async with administrator(url) as admin:
        there = {row["datname"] for row in await admin.fetch("SELECT datname FROM pg_database")}
    for row in rows:
        if row.database in there:
            async with administrator(url.set(database=row.database)) as admin:
                require_newest(row, await door_state(admin), given_up)


async def _require_fitness(admin: asyncpg.Connection) -> None:
    facts = await admin.fetchrow(
        "SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS shown,"
        " current_setting('wal_level') AS wal_level, r.rolsuper OR r.rolbypassrls AS bypass,"
        " r.rolsuper OR r.rolcreatedb AS createdb, r.rolsuper OR r.rolcreaterole AS createrole,"
        " pg_has_role(p.proowner, 'USAGE') AS closes"
        " FROM pg_roles r JOIN pg_proc p ON p.oid = 'pg_stat_get_activity(int4)'::regprocedure WHERE r.rolname = current_user"
    )
    if facts is None:
        message = "The administrator's role has gone from pg_roles while it was being looked at."
        raise ConfigurationError(message)
    missing = [right for right in ("bypass", "createdb", "createrole") if not facts[right]]
    if facts["version"] < OLDEST_VERSION:
        message = f"PostgreSQL {facts['shown']} is too old: Strata needs 15 or newer."
    elif missing:
        names = {"bypass": "BYPASSRLS", "createdb": "CREATEDB", "createrole": "CREATEROLE"}
        message = f"The administrator lacks {', '.join(names[right] for right in missing)}: ALTER ROLE … grants it."
    elif not facts["closes"]:
        # REVOKE by anybody else is a warning at most: the cell would stand with its doors open.
        message = (
            "The administrator must be a superuser: PostgreSQL's own functions through which tenants would see each other's"
            " statements, and lock each other out, can be closed by their owner only."
        )
    elif facts["wal_level"] != "logical":
        message = f"wal_level is {facts['wal_level']}: set it to logical and restart PostgreSQL; tenants move by it."
    else:
        return
    raise ConfigurationError(message)
