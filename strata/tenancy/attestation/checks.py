"""Everything that keeps a tenant's data apart, looked at in the live database: what was found, and whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import asyncpg
import msgspec

from strata.platform.database.administration import administrator
from strata.platform.database.availability import is_unreachable
from strata.platform.errors import UnavailableError
from strata.tenancy.attestation import probes
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.cell.door import Refusal
from strata.tenancy.cell.inspection import (
    Weakness,
    application,
    door_state,
    lockdown_gaps,
    role_weaknesses,
    table_weaknesses,
)
from strata.tenancy.cell.tenant_tables import TenantTable, tenant_tables
from strata.tenancy.model import FenceState

if TYPE_CHECKING:
    from strata.tenancy.cell.engines import Cell
    from strata.tenancy.context import TenantContext

_FENCE = "SELECT tenant_id, epoch, state, schema_name FROM strata.fence WHERE tenant_id = $1"
_ANOTHER = """
SELECT tenant_id, epoch, state, schema_name FROM strata.fence
WHERE tenant_id <> $1 AND state = $2 ORDER BY schema_name = $3 DESC, tenant_id LIMIT 1
"""
_SHOWN = 5


class InTransitError(UnavailableError):
    code = "in-transit"
    title = "Being moved"

    def __init__(self) -> None:
        super().__init__("A customer of this database is being moved at this moment; try again shortly.")


class Check(msgspec.Struct, frozen=True):
    name: str
    question: str
    passed: bool
    found: str


class Home(msgspec.Struct, frozen=True):
    """What the checks look at, opened once."""

    cell: Cell
    context: TenantContext
    admin: asyncpg.Connection
    tables: Sequence[TenantTable]


async def checked(registry: Registry, context: TenantContext) -> list[Check]:
    """Run all of them, now. An unreachable server raises what asyncpg calls it: nothing is attested unseen."""
    placement = context.placement
    cell = await registry.cell(placement.cell)
    async with administrator(await registry.admin_url_of_cell(placement.cell)) as admin:
        home = Home(cell, context, admin, await tenant_tables(admin, placement.schema_name))
        found = await _inspected(home)
        async with application(cell) as connection:
            return [*found, *await _probed(home, connection)]


async def _inspected(home: Home) -> list[Check]:
    placement, admin = home.context.placement, home.admin
    app_role = home.cell.url.username or ""
    door = await door_state(admin)
    fence = await admin.fetchrow(_FENCE, home.context.id)
    lives_here = fence is not None and (fence["epoch"], fence["state"], fence["schema_name"]) == (
        placement.epoch,
        FenceState.ACTIVE,
        placement.schema_name,
    )
    names = ", ".join(sorted(table.name for table in home.tables))
    return [
        _judged(
            "row-level-security",
            "Is row-level security on, forced and unaltered, with keys and grants as they must be, on every table?",
            await table_weaknesses(admin, placement.schema_name),
            f"{len(home.tables)} tables in the database's own catalogue: {names}",
        ),
        _judged(
            "roles",
            "Can the application's database roles pass a wall, own a table or take on another's rights?",
            await role_weaknesses(admin, app_role),
            f"no: {app_role} and the roles it may take on own nothing and bypass nothing",
        ),
        _judged(
            "lockdown",
            "Are the ways around closed that a stock database leaves open?",
            await lockdown_gaps(admin, app_role),
            "yes: temporary objects, advisory locks, other sessions' queries, DDL",
        ),
        Check(
            "fence",
            "Does the database itself say that this customer lives here, under the number the platform has?",
            lives_here,
            f"epoch {placement.epoch} in schema {placement.schema_name}" if lives_here else "it does not",
        ),
        Check(
            "server",
            "Is this the server that was approved, with the key that was agreed?",
            door.holds(home.cell) and door.timeline is not None and door.timeline == door.approved_timeline,
            f"timeline {door.timeline or 'of a standby'}, approved {door.approved_timeline}",
        ),
    ]


async def _probed(home: Home, connection: asyncpg.Connection) -> list[Check]:
    context, secret = home.context, home.cell.secret
    placement = context.placement
    unsealed = await probes.reached_without_entering(connection, home.tables, context.id, placement.epoch)
    admitted = await probes.entered_with_false_capability(connection, secret, context.id, placement)
    return [
        _judged(
            "seal",
            "Does any table answer a session that has not entered, or has made up its seal?",
            unsealed,
            f"no: all {len(home.tables)} tables refused, and the server lets the application set no seal",
        ),
        _judged("capability", "Does the database let anybody in with a false key?", admitted, "no: refused, twice"),
        await _denied(home, connection),
    ]


async def _denied(home: Home, connection: asyncpg.Connection) -> Check:
    """Live: another customer's session of the same database, aimed at every table."""
    context = home.context
    question = "Can another customer's live session read a single row of this customer's?"
    another = await home.admin.fetchrow(_ANOTHER, context.id, FenceState.ACTIVE.value, context.placement.schema_name)
    own = await home.admin.fetchrow(_FENCE, context.id)
    if another is None or own is None:
        return Check("denial", question, own is not None, "no other customer lives in this database")
    secret, name = home.cell.secret, home.cell.name
    try:
        seen = await probes.own_tables_with_rows(
            connection, probes.entry_of(secret, name, own), home.tables, context.id
        )
        reached = await probes.reached_as(connection, probes.entry_of(secret, name, another), home.tables, context.id)
    except asyncpg.PostgresError as error:
        if error.sqlstate in {Refusal.FENCED, Refusal.STALE_EPOCH}:
            raise InTransitError from error
        if is_unreachable(error):
            raise  # Not tried: a server that went away in the middle says nothing of the wall.
        return Check("denial", question, passed=False, found=f"nobody is let in to try ({error.sqlstate}: {error})")
    return _judged(
        "denial",
        question,
        reached,
        f"no: tried on all {len(home.tables)} tables; this customer's own session finds rows in {seen} of them",
    )


def _judged(name: str, question: str, faults: Sequence[Weakness | str], good: str) -> Check:
    if not faults:
        return Check(name, question, passed=True, found=good)
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return Check(name, question, passed=False, found="; ".join(map(str, faults[:_SHOWN])) + more)
