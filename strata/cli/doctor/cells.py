"""Servers and cells: can they be reached, can they do what is needed, and do their walls stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from strata.cli.doctor.report import Report
from strata.platform.database.administration import administrator
from strata.runtime import Runtime
from strata.tenancy.catalog.tables import CellRow, ServerRow
from strata.tenancy.cell.door import Isolation, Refusal, entry_message
from strata.tenancy.cell.engines import Cell
from strata.tenancy.cell.inspection import (
    Weakness,
    application,
    count_tenant_tables,
    door_state,
    lockdown_gaps,
    role_weaknesses,
    table_weaknesses,
)
from strata.tenancy.model import CellState, FenceState, Placement, Tier, tenant_schema
from strata.tenancy.provisioning.servers import OLDEST_VERSION

if TYPE_CHECKING:
    from uuid import UUID

# A move takes one of each; fewer than this, and somebody who starts three waits for the third.
_SPARE = 4
_SHOWN = 5

_FITNESS = """
SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS shown,
       current_setting('wal_level') AS wal_level, pg_is_in_recovery() AS standby,
       current_setting('max_prepared_transactions')::int AS prepared,
       current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots) AS slots,
       current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication) AS senders,
       current_setting('max_connections')::int - (SELECT count(*) FROM pg_stat_activity
                                                  WHERE backend_type = 'client backend') AS connections,
       r.rolsuper OR (r.rolbypassrls AND r.rolcreatedb AND r.rolcreaterole AND pg_has_role(p.proowner, 'USAGE')) AS entitled
FROM pg_roles r JOIN pg_proc p ON p.oid = 'pg_stat_get_activity(int4)'::regprocedure
WHERE r.rolname = current_user
"""


async def registered(runtime: Runtime) -> tuple[Sequence[ServerRow], Sequence[CellRow]]:
    async with AsyncSession(runtime.catalog_engine) as session:
        servers = (await session.scalars(select(ServerRow).order_by(ServerRow.name))).all()
        cells = (await session.scalars(select(CellRow).order_by(CellRow.name))).all()
    return servers, cells


async def check_server(report: Report, runtime: Runtime, server: ServerRow) -> None:
    name = f"server {server.name}"
    async with administrator(await runtime.registry.admin_url(server)) as admin:
        facts = (await admin.fetch(_FITNESS))[0]
        roles = await role_weaknesses(admin, server.app_role)
    judge_server(report, name, dict(facts))
    _judge(
        report,
        f"roles of {server.name}",
        roles,
        good=f"{server.app_role} and tenants' roles own nothing and pass no wall",
        todo="Take from these roles what they should not have (ALTER ROLE, REASSIGN OWNED, REVOKE).",
    )


def judge_server(report: Report, name: str, facts: Mapping[str, Any]) -> None:
    todo = ""
    if facts["version"] < OLDEST_VERSION:
        todo = "Strata needs PostgreSQL 15 or newer: upgrade it."
    elif facts["standby"]:
        todo = "It is a standby: register the primary with strata server add."
    elif facts["wal_level"] != "logical":
        todo = "Set wal_level to logical and restart it: tenants move by it."
    elif not facts["entitled"]:
        todo = "Make the administrator a superuser, or register another one with strata server add."
    found = (
        f"PostgreSQL {facts['shown']}, wal_level {facts['wal_level']}, free: {facts['slots']} slots, "
        f"{facts['senders']} senders, {facts['connections']} connections"
    )
    if todo:
        report.failure(name, found, todo)
    elif min(facts["slots"], facts["senders"]) < _SPARE:
        report.warning(name, found, "Raise max_replication_slots and max_wal_senders: moves of tenants need them.")
    elif facts["prepared"]:
        report.warning(
            name,
            f"max_prepared_transactions is {facts['prepared']}",
            "Set it to 0 and restart: a prepared transaction that nobody ends holds its tenant's lock for ever.",
        )
    else:
        report.ok(name, found)


async def check_cell(report: Report, runtime: Runtime, row: CellRow, server: str) -> None:
    name = f"cell {row.name}"
    if row.state == CellState.BUILDING:
        report.warning(name, "half made", "Finish it by running strata cell add again; a sweep clears dedicated ones.")
        return
    cell = await runtime.registry.cell(row.name)
    async with administrator(await runtime.registry.admin_url_of_cell(row.name)) as admin:
        await _check_door(report, admin, cell, row, server)
        app_role = cell.url.username or ""
        tables = await count_tenant_tables(admin)
        _judge(
            report,
            f"tables of {row.name}",
            await table_weaknesses(admin),
            good=f"{tables} tables, each walled by forced row-level security and keyed by tenant",
            todo="Secure these tables as a revision would: SELECT strata.secure('table'), keys led by tenant_id.",
        )
        _judge(
            report,
            f"lockdown of {row.name}",
            await lockdown_gaps(admin, app_role),
            good="what a stock database leaves open is closed",
            todo="Revoke these as strata/migrations/cell/sql/0001_lockdown.sql does.",
        )


async def _check_door(report: Report, admin: asyncpg.Connection, cell: Cell, row: CellRow, server: str) -> None:
    name = f"cell {row.name}"
    door = await door_state(admin)
    if not door.holds(cell):
        report.failure(
            name, "its secret is not the catalog's", "Restore the catalog and the cell from the same moment."
        )
    elif door.timeline is None:
        report.failure(name, "it is a standby", "Promote it, or register the primary with strata server add.")
    elif not door.timeline == door.approved_timeline == row.timeline:
        report.failure(
            name,
            f"it runs on timeline {door.timeline}; approved are {door.approved_timeline} (cell), {row.timeline} (catalog)",
            f"It was failed over: see what strata server approve {server} --dry-run says, then run it without.",
        )
    else:
        await _try_the_door(report, name, admin, cell)


async def _try_the_door(report: Report, name: str, admin: asyncpg.Connection, cell: Cell) -> None:
    """As the application, into one tenant that lives here; nothing is read, and it is rolled back."""
    tenant = await admin.fetchrow(
        "SELECT tenant_id, epoch, schema_name FROM strata.fence WHERE state = $1 LIMIT 1", FenceState.ACTIVE.value
    )
    async with application(cell) as connection:
        if tenant is None:
            report.ok(name, "reachable as the application; no tenant lives here yet")
            return
        message = entry_message(
            cell.secret, tenant["tenant_id"], _placement(cell.name, tenant), Isolation.READ_COMMITTED, read_only=True
        )
        try:
            await connection.execute(message)
        except asyncpg.PostgresError as error:
            # A cut-over under way, or one that ended this moment, is no fault of the cell.
            if error.sqlstate not in {Refusal.FENCED, Refusal.STALE_EPOCH}:
                report.failure(
                    name,
                    f"the application is turned away ({error.sqlstate}: {error})",
                    "Register its server again with strata server add, and bring it up to date with strata db upgrade.",
                )
                return
        await connection.execute("ROLLBACK")
    report.ok(name, "reachable as the application, which its door lets in")


def _placement(cell: str, fence: asyncpg.Record) -> Placement:
    tenant_id: UUID = fence["tenant_id"]
    schema: str = fence["schema_name"]
    # Dedicated and shared are entered alike.
    tier = Tier.SCHEMA if schema == tenant_schema(tenant_id) else Tier.SHARED
    return Placement(cell=cell, tier=tier, schema_name=schema, epoch=fence["epoch"])


def _judge(report: Report, name: str, weaknesses: list[Weakness], *, good: str, todo: str) -> None:
    if not weaknesses:
        report.ok(name, good)
        return
    shown = "; ".join(str(weakness) for weakness in weaknesses[:_SHOWN])
    more = f"; and {len(weaknesses) - _SHOWN} more" if len(weaknesses) > _SHOWN else ""
    report.failure(name, shown + more, todo)
