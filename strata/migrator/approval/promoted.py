"""The cells of a server as what answers there now has them, and whether that may be approved at all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncpg
import msgspec
from sqlalchemy import URL

from strata.migrator.approval.errors import (
    AnotherCopyError,
    NoCellsError,
    NotPromotedError,
    OldTimelineError,
    StillWritableError,
    StrangeCellError,
)
from strata.platform.database.administration import administrator
from strata.platform.database.connecting import ServerUnreachableError
from strata.platform.database.failures import NO_ANSWER
from strata.tenancy.catalog.tables import CellRow
from strata.tenancy.cell.inspection import door_state

if TYPE_CHECKING:
    from strata.tenancy.catalog.registry import Registry

_CLUSTER = "SELECT pg_is_in_recovery() AS standby, (SELECT system_identifier FROM pg_control_system()) AS cluster"


class PromotedCell(msgspec.Struct, frozen=True):
    row: CellRow
    url: URL
    """Its administrator's."""
    timeline: str
    approved: bool
    """The cell itself knows the timeline by now: a run before this one came so far."""

    @property
    def recorded(self) -> bool:
        return self.approved and self.row.timeline == self.timeline


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
    if row.timeline is not None:
        # Eight hexadecimal digits: they compare as the numbers do.
        if door.timeline < row.timeline:
            raise OldTimelineError(row.name, door.timeline, row.timeline)
        # Whatever tenants wrote on that timeline came after the row that approved it, which this copy lacks.
        if door.approved_timeline < row.timeline != given_up:
            raise AnotherCopyError(row.name, row.timeline)
    return PromotedCell(row, at, door.timeline, door.approved_timeline == door.timeline)


async def require_silent(server: str, before: URL, now: URL) -> None:
    """StillWritableError when the primary of before answers at the address that is about to be given up."""
    if (before.host, before.port) == (now.host, now.port):
        return
    async with administrator(now) as admin:
        here = (await admin.fetch(_CLUSTER))[0]
    there = await cluster_at(before)
    if there is not None and there["cluster"] == here["cluster"] and not there["standby"]:
        raise StillWritableError(server, f"{before.host}:{before.port or 5432}")


async def cluster_at(url: URL) -> asyncpg.Record | None:
    """Which cluster answers and whether as a standby; None: nobody does."""
    with suppress(ServerUnreachableError, *NO_ANSWER):
        async with administrator(url) as admin:
            found: asyncpg.Record = (await admin.fetch(_CLUSTER))[0]
            return found
    return None
