"""Reading the catalog's audit in the order of its chain, and the anchors that it keeps of the tenants' chains."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.platform.paging import Keyset, Page, Paging
from strata.tenancy.audit.chain import Anchor, ChainedEntry, Verification, Verifier
from strata.tenancy.audit.reading import EntryFilter, EntryOut
from strata.tenancy.catalog.tables import AuditAnchorRow, AuditLinkRow, AuditRow

_AT_ONCE = 1000
_CHAINED = select(
    AuditLinkRow.sequence,
    AuditRow.id,
    AuditRow.at,
    AuditRow.actor,
    AuditRow.action,
    AuditRow.subject,
    AuditRow.tenant_id,
    AuditRow.source,
    AuditRow.authentication,
    AuditRow.request,
    cast(AuditRow.detail, Text),
    AuditLinkRow.previous,
    AuditLinkRow.digest,
).join(AuditRow, AuditRow.id == AuditLinkRow.entry_id)

_SHOWN = select(
    AuditLinkRow.sequence,
    AuditRow.at,
    AuditRow.actor,
    AuditRow.action,
    AuditRow.subject,
    AuditRow.source,
    AuditRow.authentication,
    AuditRow.request,
    AuditRow.detail,
).join(AuditRow, AuditRow.id == AuditLinkRow.entry_id)
_ORDER = Keyset(AuditLinkRow.sequence, descending=True)


async def list_entries(
    catalog: AsyncEngine, paging: Paging, wanted: EntryFilter, *, tenant_id: UUID | None = None
) -> Page[EntryOut]:
    """The newest first; with `tenant_id`, only what was done to this tenant."""
    statement = _ORDER.select_page(_SHOWN.where(*_conditions(wanted, tenant_id)), paging)
    async with catalog.connect() as connection:
        rows = (await connection.execute(statement)).all()
    return _ORDER.page(rows, paging, item=lambda row: EntryOut(*row), position=lambda row: (row.sequence,))


def _conditions(wanted: EntryFilter, tenant_id: UUID | None) -> Iterator[ColumnElement[bool]]:
    for column, value in (
        (AuditRow.tenant_id, tenant_id),
        (AuditRow.actor, wanted.actor),
        (AuditRow.action, wanted.action),
        (AuditRow.subject, wanted.subject),
    ):
        if value is not None:
            yield column == value
    if wanted.since is not None:
        yield AuditRow.at >= wanted.since
    if wanted.before is not None:
        yield AuditRow.at < wanted.before


async def every_entry(catalog: AsyncEngine, tenant_id: UUID | None = None) -> AsyncIterator[ChainedEntry]:
    """The oldest first, up to the newest of the moment it began. `tenant_id`: only what was done to this tenant."""
    async with catalog.connect() as connection:
        newest: int | None = await connection.scalar(select(func.max(AuditLinkRow.sequence)))
    statement = _CHAINED if tenant_id is None else _CHAINED.where(AuditRow.tenant_id == tenant_id)
    after = 0
    while newest is not None:
        page = statement.where(AuditLinkRow.sequence > after, AuditLinkRow.sequence <= newest)
        async with catalog.connect() as connection:
            rows = (await connection.execute(page.order_by(AuditLinkRow.sequence).limit(_AT_ONCE))).all()
        for row in rows:
            yield _chained(row)
        if len(rows) < _AT_ONCE:
            return
        after = rows[-1].sequence


def _chained(row: Sequence[Any]) -> ChainedEntry:
    return ChainedEntry(*row)


async def verify(catalog: AsyncEngine) -> Verification:
    verifier = Verifier()
    async for entry in every_entry(catalog):
        verifier.take(entry)
    unlinked = select(func.count()).where(~select(AuditLinkRow).where(AuditLinkRow.entry_id == AuditRow.id).exists())
    async with catalog.connect() as connection:
        strangers = await connection.scalar(unlinked.select_from(AuditRow))
    return verifier.result(strangers=strangers or 0)


async def anchors_of(catalog: AsyncEngine, tenant_id: UUID) -> list[Anchor]:
    statement = select(AuditAnchorRow.sequence, AuditAnchorRow.digest).where(AuditAnchorRow.tenant_id == tenant_id)
    async with catalog.connect() as connection:
        return [Anchor(*row) for row in await connection.execute(statement)]


async def anchor(catalog: AsyncEngine, tenant_id: UUID, head: Anchor) -> None:
    """Remember how the tenant's chain stands. The first word counts: an anchor is never replaced."""
    row = {"tenant_id": tenant_id, "sequence": head.sequence, "digest": head.digest}
    async with catalog.begin() as connection:
        await connection.execute(insert(AuditAnchorRow).values(row).on_conflict_do_nothing())
