"""What a change of flags is in the catalog: checked against all others, written, and written down."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from strata.platform.errors import ConflictError, NotFoundError
from strata.tenancy.catalog.audit import record
from strata.tenancy.flags.compiled_set import CompiledSet, check_segment_names, in_order
from strata.tenancy.flags.history import Document
from strata.tenancy.flags.model import Flag, FlagSet, Segment
from strata.tenancy.flags.tables import FlagChangeRow, FlagOverrideRow, FlagRow, FlagSegmentRow, FlagSubject


class NewOverride(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    variant: str
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    expires_at: datetime | None = None


class Act(msgspec.Struct, frozen=True):
    actor: str
    reason: str | None
    undoes: UUID | None = None


async def write_flag(session: AsyncSession, before: FlagSet, key: str, flag: Flag | None, act: Act) -> None:
    after = with_flag(before, key, flag)
    in_order(after.flags)
    CompiledSet(after, strict=True)
    await _check_overrides(session, key, flag)
    document = None if flag is None else msgspec.to_builtins(flag)
    if document is None:
        await session.execute(delete(FlagRow).where(FlagRow.key == key))
    else:
        values = {"document": document, "changed_by": act.actor}
        await session.execute(
            insert(FlagRow)
            .values(key=key, **values)
            .on_conflict_do_update(
                index_elements=["key"], set_={**values, "version": FlagRow.version + 1, "changed_at": func.now()}
            )
        )
    old = before.flags.get(key)
    _write_down(session, FlagSubject.FLAG, key, (None if old is None else msgspec.to_builtins(old), document), act)


async def _check_overrides(session: AsyncSession, key: str, flag: Flag | None) -> None:
    left = [] if flag is None else list(flag.variants)
    lost = await session.scalar(
        select(func.count()).where(FlagOverrideRow.flag == key, FlagOverrideRow.variant.not_in(left))
    )
    if lost:
        message = f"Flag «{key}» is set by hand to what would be gone, for {lost} tenants: end those overrides first."
        raise ConflictError(message)


async def write_segment(session: AsyncSession, before: FlagSet, name: str, segment: Segment | None, act: Act) -> None:
    document = None if segment is None else msgspec.to_builtins(segment)
    segments = {key: each for key, each in before.segments.items() if key != name}
    if document is None or segment is None:
        check_segment_names(before, name)
        await session.execute(delete(FlagSegmentRow).where(FlagSegmentRow.name == name))
    else:
        CompiledSet(FlagSet(before.version, before.flags, {**segments, name: segment}), strict=True)
        values = {"document": document, "changed_by": act.actor}
        await session.execute(
            insert(FlagSegmentRow)
            .values(name=name, **values)
            .on_conflict_do_update(index_elements=["name"], set_={**values, "changed_at": func.now()})
        )
    old = before.segments.get(name)
    _write_down(session, FlagSubject.SEGMENT, name, (None if old is None else msgspec.to_builtins(old), document), act)


async def write_override(session: AsyncSession, key: str, tenant_id: UUID, document: Document | None, act: Act) -> None:
    row = await session.get(FlagOverrideRow, (tenant_id, key))
    before = None if row is None else _override_document(row)
    if document is None:
        if row is None:
            message = f"Flag «{key}» is not set by hand for that tenant."
            raise NotFoundError(message)
        await session.delete(row)
    else:
        new = msgspec.convert(document, NewOverride)
        values = {
            "variant": new.variant,
            "reason": new.reason,
            "expires_at": new.expires_at,
            "set_by": act.actor,
            "set_at": func.now(),
        }
        await session.execute(
            insert(FlagOverrideRow)
            .values(tenant_id=tenant_id, flag=key, **values)
            .on_conflict_do_update(index_elements=["tenant_id", "flag"], set_=values)
        )
    _write_down(session, FlagSubject.OVERRIDE, key, (before, document), act, tenant_id)


def _write_down(
    session: AsyncSession,
    subject: FlagSubject,
    name: str,
    documents: tuple[Document | None, Document | None],
    act: Act,
    tenant_id: UUID | None = None,
) -> None:
    """In the history, which undo goes by, and in the audit, which everything goes into."""
    before, after = documents
    session.add(
        FlagChangeRow(
            subject=subject,
            name=name,
            tenant_id=tenant_id,
            before=before,
            after=after,
            actor=act.actor,
            reason=act.reason,
            undoes=act.undoes,
        )
    )
    verb = "undo" if act.undoes else "delete" if after is None else "put"
    detail: dict[str, object] = {"before": before, "after": after, "reason": act.reason}
    record(
        session,
        act.actor,
        f"{'flag' if subject is FlagSubject.FLAG else f'flag-{subject}'}.{verb}",
        name,
        tenant_id=tenant_id,
        detail=detail,
    )


def _override_document(row: FlagOverrideRow) -> Document:
    document: Document = msgspec.to_builtins(NewOverride(row.variant, row.reason, row.expires_at))
    return document


def with_flag(before: FlagSet, key: str, flag: Flag | None) -> FlagSet:
    flags = {name: each for name, each in before.flags.items() if name != key}
    if flag is not None:
        flags[key] = flag
    return FlagSet(before.version, flags, before.segments)


def flag_of(document: Document | None) -> Flag | None:
    return None if document is None else msgspec.convert(document, Flag)
