"""What was done to flags and segments, and which of it an undo would take back."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import aliased

from strata.platform.errors import ConflictError
from strata.platform.paging import Keyset, Page, Paging
from strata.tenancy.flags.tables import FlagChangeRow, FlagSubject

Document = dict[str, Any]

_ORDER = Keyset(FlagChangeRow.id, descending=True)
_COLUMNS = (
    FlagChangeRow.id,
    FlagChangeRow.at,
    FlagChangeRow.subject,
    FlagChangeRow.name,
    FlagChangeRow.tenant_id,
    FlagChangeRow.before,
    FlagChangeRow.after,
    FlagChangeRow.actor,
    FlagChangeRow.reason,
    FlagChangeRow.undoes,
)


class FlagChange(msgspec.Struct, frozen=True):
    id: UUID
    at: datetime
    subject: FlagSubject
    name: str
    tenant_id: UUID | None
    before: Document | None
    after: Document | None
    actor: str
    reason: str | None
    undoes: UUID | None


class NothingToUndoError(ConflictError):
    code = "nothing-to-undo"
    title = "Nothing to undo"

    def __init__(self, name: str) -> None:
        super().__init__(f"Every change of «{name}» has been taken back already: its history shows them.")


async def changes_of(
    connection: AsyncConnection, name: str, subjects: tuple[FlagSubject, ...], paging: Paging
) -> Page[FlagChange]:
    """Newest first."""
    chosen = select(*_COLUMNS).where(FlagChangeRow.name == name, FlagChangeRow.subject.in_(subjects))
    rows = (await connection.execute(_ORDER.select_page(chosen, paging))).all()
    return _ORDER.page(
        rows,
        paging,
        item=lambda row: FlagChange(row[0], row[1], FlagSubject(row[2]), *row[3:]),
        position=lambda row: (row.id,),
    )


async def last_standing(session: AsyncSession, name: str, subjects: tuple[FlagSubject, ...]) -> FlagChangeRow:
    """The newest change that is no undo and was not undone."""
    undo = aliased(FlagChangeRow)
    row = await session.scalar(
        select(FlagChangeRow)
        .where(
            FlagChangeRow.name == name,
            FlagChangeRow.subject.in_(subjects),
            FlagChangeRow.undoes.is_(None),
            ~select(undo.id).where(undo.undoes == FlagChangeRow.id).exists(),
        )
        .order_by(FlagChangeRow.id.desc())
        .limit(1)
    )
    if row is None:
        raise NothingToUndoError(name)
    return row
