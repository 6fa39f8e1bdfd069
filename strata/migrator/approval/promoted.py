"""The cells of a server as what answers there now has them, and whether that may be approved at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import asyncpg
import msgspec
from sqlalchemy import URL

from strata.migrator.approval.errors import (
    NoCellsError,
    NothingGivenUpError,
    NotPromotedError,
    PerhapsWritableError,
    StillWritableError,
    StrangeCellError,
)
from strata.platform.database.administration import administrator
from strata.platform.database.connecting import ServerUnreachableError
from strata.platform.database.failures import NO_ANSWER
from strata.tenancy.catalog.tables import CellRow
from strata.tenancy.cell.inspection import door_state
from strata.tenancy.provisioning.timelines import has_not_heard, require_newest

if TYPE_CHECKING:
    from strata.tenancy.catalog.registry import Registry

_CLUSTER = """
SELECT pg_is_in_recovery() AS standby, (SELECT system_identifier FROM pg_control_system()) AS cluster,
       pg_postmaster_start_time() AS started
"""


class PromotedCell(msgspec.Struct, frozen=True):
    row: CellRow
    url: URL
    """Its administrator's."""
    timeline: str
    approved: bool
    """The cell itself knows the timeline by now: a run before this one came so far."""
    lacks: bool
    """It has nothing of what was written on the timeline that the catalog has."""

    @property
    def recorded(self) -> bool:
        return self.approved and self.row.timeline == self.timeline

    def gives_up(self, timeline: str) -> bool:
        """Whether approving it loses what was written on that timeline, or has lost it in a run that died."""
        return self.row.timeline == timeline and (self.lacks or (self.approved and not self.recorded))


class Promoted(msgspec.Struct, frozen=True):
    cells: list[PromotedCell]
    missing: list[CellRow]
    """In the catalog, and not on the server: made after the last that the standby heard."""


async def look(
    registry: Registry, server: str, url: URL, rows: Sequence[CellRow], given_up: str | None = None
) -> Promoted:
    """Refuses with an error of `errors` what must not be approved; asks, and changes nothing.

    `given_up`: the timeline whose server is lost for good, with all that was written there.
    """
    async with administrator(url) as admin:
        if await admin.fetchval("SELECT pg_is_in_recovery()"):
            raise NotPromotedError(server)
        there = {row["datname"] for row in await admin.fetch("SELECT datname FROM pg_database")}
    cells = [await _cell(registry, server, url, row, given_up) for row in rows if row.database in there]
    if rows and not cells:
        raise NoCellsError(server, [row.name for row in rows])
    if given_up is not None and not any(cell.gives_up(given_up) for cell in cells):
        raise NothingGivenUpError(server, given_up)
    return Promoted(cells, [row for row in rows if row.database not in there])


async def _cell(registry: Registry, server: str, url: URL, row: CellRow, given_up: str | None) -> PromotedCell:
    at = url.set(database=row.database)
    async with administrator(at) as admin:
        door = await door_state(admin)
        name = await admin.fetchval("SELECT name FROM strata.cell")
    if name != row.name or (door.ipad, door.opad) != (await registry.cell_secret(row)).padded():
        raise StrangeCellError(row.name, server)
    if door.timeline is None:
        raise NotPromotedError(server)
    require_newest(row, door, given_up)
    return PromotedCell(row, at, door.timeline, door.approved_timeline == door.timeline, has_not_heard(row, door))


async def require_silent(server: str, before: URL, now: URL) -> None:
    """Refuse while the primary of before answers at the address that is about to be given up."""
    async with administrator(now) as admin:
        here = (await admin.fetch(_CLUSTER))[0]
    address = f"{before.host}:{before.port or 5432}"
    try:
        there = await _cluster_at(before)
    except (ServerUnreachableError, *NO_ANSWER) as error:
        if (refusal := _refusal(error)) is None:
            return
        raise PerhapsWritableError(server, address, str(refusal)) from error
    # One server may have several names: what has started at the very same moment is this one.
    another = there["started"] != here["started"]
    if another and there["cluster"] == here["cluster"] and not there["standby"]:
        raise StillWritableError(server, address)


async def takes_writes(url: URL) -> bool:
    """Whether a primary answers there."""
    try:
        return not (await _cluster_at(url))["standby"]
    except (ServerUnreachableError, *NO_ANSWER):
        return False


async def _cluster_at(url: URL) -> asyncpg.Record:
    async with administrator(url) as admin:
        found: asyncpg.Record = (await admin.fetch(_CLUSTER))[0]
        return found


def _refusal(error: BaseException) -> asyncpg.PostgresError | None:
    """What a server that runs has said; None: nothing has answered."""
    said = error.__cause__ if isinstance(error, ServerUnreachableError) else error
    lost = isinstance(said, asyncpg.PostgresConnectionError)
    return said if isinstance(said, asyncpg.PostgresError) and not lost else None
