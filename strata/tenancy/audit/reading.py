"""Reading a tenant's audit: by page, whole, and to check it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Text, cast, func, select

from strata.platform.paging import Keyset, Page, Paging
from strata.tenancy.audit.chain import Anchor, ChainedEntry, Verification, Verifier
from strata.tenancy.audit.models import AuditEntryRow
from strata.tenancy.context import TenantContext
from strata.tenancy.session import TenantReadSession, Tenants

_AT_ONCE = 1000
_ORDER = Keyset(AuditEntryRow.sequence, descending=True)
_SHOWN = (
    AuditEntryRow.sequence,
    AuditEntryRow.at,
    AuditEntryRow.actor,
    AuditEntryRow.action,
    AuditEntryRow.subject,
    AuditEntryRow.source,
    AuditEntryRow.authentication,
    AuditEntryRow.request,
    AuditEntryRow.detail,
)
_CHAINED = (
    AuditEntryRow.sequence,
    AuditEntryRow.id,
    AuditEntryRow.at,
    AuditEntryRow.actor,
    AuditEntryRow.action,
    AuditEntryRow.subject,
    AuditEntryRow.tenant_id,
    AuditEntryRow.source,
    AuditEntryRow.authentication,
    AuditEntryRow.request,
    cast(AuditEntryRow.detail, Text),
    AuditEntryRow.previous,
    AuditEntryRow.digest,
)


class EntryOut(msgspec.Struct, frozen=True):
    sequence: int
    at: datetime
    actor: str
    action: str
    subject: str
    source: str | None
    authentication: str | None
    request: str | None
    detail: dict[str, Any]


class EntryFilter(msgspec.Struct, frozen=True):
    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    since: datetime | None = None
    before: datetime | None = None


def conditions(wanted: EntryFilter) -> Iterator[ColumnElement[bool]]:
    for column, value in (
        (AuditEntryRow.actor, wanted.actor),
        (AuditEntryRow.action, wanted.action),
        (AuditEntryRow.subject, wanted.subject),
    ):
        if value is not None:
            yield column == value
    if wanted.since is not None:
        yield AuditEntryRow.at >= wanted.since
    if wanted.before is not None:
        yield AuditEntryRow.at < wanted.before


async def list_entries(session: TenantReadSession, paging: Paging, wanted: EntryFilter) -> Page[EntryOut]:
    """The newest first."""
    statement = _ORDER.select_page(select(*_SHOWN).where(*conditions(wanted)), paging)
    rows = (await session.execute(statement)).all()
    return _ORDER.page(rows, paging, item=lambda row: EntryOut(*row), position=lambda row: (row.sequence,))


async def every_entry(
    tenants: Tenants,
    context: TenantContext,
    wanted: EntryFilter = EntryFilter(),  # noqa: B008 - frozen
) -> AsyncIterator[ChainedEntry]:
    """The oldest first, up to the newest of the moment it began; in transactions of their own, so that none is long."""
    async with tenants.reading(context) as session:
        newest: int | None = await session.scalar(select(func.max(AuditEntryRow.sequence)))
    after = 0
    while newest is not None:
        statement = (
            select(*_CHAINED)
            .where(AuditEntryRow.sequence > after, AuditEntryRow.sequence <= newest, *conditions(wanted))
            .order_by(AuditEntryRow.sequence)
            .limit(_AT_ONCE)
        )
        async with tenants.reading(context) as session:
            rows = (await session.execute(statement)).all()
        for row in rows:
            yield _chained(row)
        if len(rows) < _AT_ONCE:
            return
        after = rows[-1].sequence


def _chained(row: Sequence[Any]) -> ChainedEntry:
    return ChainedEntry(*row)


async def verify(tenants: Tenants, context: TenantContext, anchors: list[Anchor]) -> Verification:
    verifier = Verifier(anchors)
    async for entry in every_entry(tenants, context):
        verifier.take(entry)
    return verifier.result()


async def head(session: TenantReadSession) -> Anchor | None:
    row = (
        await session.execute(
            select(AuditEntryRow.sequence, AuditEntryRow.digest).order_by(AuditEntryRow.sequence.desc()).limit(1)
        )
    ).one_or_none()
    return None if row is None else Anchor(row.sequence, row.digest)
