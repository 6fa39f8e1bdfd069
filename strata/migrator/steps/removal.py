"""Take away a home that a tenant has left, or never came to live in. Every act looks in its own transaction whether the
tenant's fence leads elsewhere and the attempt still stands: a worker that slept must not delete what has come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete

from strata.migrator import fence
from strata.migrator.copy_sessions import Warrant
from strata.migrator.errors import PutOffError, SupersededError
from strata.migrator.faults import reached
from strata.migrator.losses import being_removed
from strata.migrator.models import ObjectKind, Side
from strata.migrator.sites import application_name
from strata.migrator.target import Target
from strata.platform.errors import ConflictError
from strata.tenancy.catalog.tables import PlacementRow
from strata.tenancy.events.tables import OutboxRemainderRow
from strata.tenancy.model import Tier

if TYPE_CHECKING:
    import asyncpg

    from strata.migrator.sites import End
    from strata.migrator.work import Work

_EVENTS_EVERY_S = 0.5
_HOMES = frozenset({ObjectKind.ROWS, ObjectKind.SCHEMA, ObjectKind.ROLE, ObjectKind.DATABASE, ObjectKind.FENCE})


class StillLivedInError(ConflictError):
    code = "still-lived-in"
    title = "The tenant lives here"

    def __init__(self, end: End) -> None:
        super().__init__(f"The fence of {end.place} lets the tenant in: nothing there was deleted.")


async def wait_for_events(work: Work, left: End) -> None:
    """Events that the tenant wrote in the home it left are told from there, before the home goes."""
    if not await left.is_there():
        return
    await left.require_approved()
    assert work.move.epoch is not None  # noqa: S101 - a flip has been made
    if await work.around.left_behind(work.move.tenant_id, work.move.epoch):
        message = "Events of the tenant, written before it moved, are still being delivered from its old home."
        raise PutOffError(message, after_s=_EVENTS_EVERY_S)


async def remove_home(work: Work, side: Side) -> list[str]:
    """Remove the home at one end; what was removed, in words. Rerunnable."""
    end = work.ends[side]
    # Before anything goes: from now on nobody can live on here.
    if not await work.note(**{being_removed(side): True}):
        raise SupersededError(work.move.id, work.move.attempt)
    removed = []
    kind = work.around.homes[end.place.tier]

    async def guard(connection: asyncpg.Connection) -> None:
        await _guard(connection, end)

    if end.place.tier is not Tier.DEDICATED and not await end.is_there():
        await _forget_events(work, end)
        removed.append(f"nothing: {end.place.cell} has no database any more")
    elif end.place.tier is Tier.SHARED:
        warrant = Warrant(application_name(end.home.tenant_id, end.attempt), guard)
        rows = await Target(end.home, warrant).empty()
        removed.append(f"{rows} rows in {end.place.cell}")
    else:
        await kind.unmake(end.site, guard)
        removed.append(f"{end.place.tier} {end.place.schema_name} in {end.place.cell}")
    await reached(f"{work.move.phase}.removed")
    if end.place.tier is Tier.DEDICATED:
        await _require_forsaken(work, end)
    elif not work.move.in_one_cell and await end.is_there():
        async with end.writing() as connection:
            await fence.withdraw(connection, work.move.tenant_id, end.home.schema_name)
    of_home = [each for each in await work.around.objects.of(work.move.id, side=side) if each.kind in _HOMES]
    await work.around.objects.forget(work.move.id, *of_home)
    return removed


async def _forget_events(work: Work, end: End) -> None:
    """Of a database that is lost nothing can be delivered any more: what the tenant writes now does not wait for it."""
    of_it = OutboxRemainderRow.cell_id == end.site.cell.id, OutboxRemainderRow.tenant_id == work.move.tenant_id
    async with work.around.moves.writing() as session:
        await session.execute(delete(OutboxRemainderRow).where(*of_it))


async def _guard(connection: asyncpg.Connection, end: End) -> None:
    await end.hold(connection)
    # Shared: it keeps a cut-over out that would bring the tenant back, and lets the tenant work (in one cell, the lock is
    # that of the home it lives in now).
    await connection.execute("SELECT set_config('lock_timeout', '2s', true)")
    await connection.execute("SELECT pg_advisory_xact_lock_shared(strata.lock_key($1))", end.home.tenant_id)
    if not await fence.stands_empty(connection, end.home.tenant_id, end.home.schema_name):
        raise StillLivedInError(end)


async def _require_forsaken(work: Work, end: End) -> None:
    async with work.around.moves.writing() as session:
        lived_in = PlacementRow.__table__.select().where(PlacementRow.cell_id == end.site.cell.id)
        if (await session.execute(lived_in)).first() is not None:
            raise StillLivedInError(end)


def cell_of(end: End) -> str | None:
    """A dedicated cell goes with its tenant's home; which it is the move must know until it has ended."""
    return end.place.cell if end.place.tier is Tier.DEDICATED else None
