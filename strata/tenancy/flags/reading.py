"""All flags and segments of one moment, read from the catalog in one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import structlog
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from strata.tenancy.flags.model import Flag, FlagSet, Segment
from strata.tenancy.flags.tables import FlagRow, FlagSegmentRow, FlagSetRow

log = structlog.get_logger(__name__)

T = TypeVar("T", Flag, Segment)

_ALL = select(
    FlagSetRow.version,
    select(func.jsonb_agg(FlagRow.document)).scalar_subquery(),
    select(func.jsonb_agg(FlagSegmentRow.document)).scalar_subquery(),
)
_VERSION = select(FlagSetRow.version)


async def read_flags(connection: AsyncConnection | AsyncSession) -> FlagSet:
    version, flags, segments = (await connection.execute(_ALL)).one()
    return FlagSet(
        version,
        {each.key: each for each in _decoded(flags, Flag)},
        {each.name: each for each in _decoded(segments, Segment)},
    )


async def lock_flags(session: AsyncSession) -> FlagSet:
    """As they are until the end of the transaction: changes come one after the other."""
    await session.execute(_VERSION.with_for_update())
    return await read_flags(session)


def _decoded(documents: Sequence[dict[str, Any]] | None, kind: type[T]) -> list[T]:
    found = []
    for document in documents or ():
        try:
            found.append(msgspec.convert(document, kind))
        except msgspec.ValidationError as error:
            # Of a newer release: what this one does not understand is off here, and no reason to lose the others.
            log.error("flags.unreadable", document=document, error=str(error))  # noqa: TRY400
    return found
