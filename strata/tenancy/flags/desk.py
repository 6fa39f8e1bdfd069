"""Where staff change flags: checked as a whole, written with history and audit, told to every process.

One change at a time over all flags (a lock on the set): prerequisites of one are checked against the others as they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from strata.platform.errors import NotFoundError
from strata.platform.etags import check_if_match
from strata.platform.paging import Page, Paging
from strata.tenancy.catalog.audit import SYSTEM
from strata.tenancy.catalog.tables import TenantRow
from strata.tenancy.catalog.tenants import Announce
from strata.tenancy.context_loader import ContextLoader
from strata.tenancy.errors import UnknownTenantError
from strata.tenancy.flags.conditions import invalid
from strata.tenancy.flags.dry_run import DryRun, OverrideWish, dry_run
from strata.tenancy.flags.history import FlagChange, changes_of, last_standing
from strata.tenancy.flags.model import Flag, FlagSet, Segment
from strata.tenancy.flags.reading import lock_flags, read_flags
from strata.tenancy.flags.tables import FlagOverrideRow, FlagRow, FlagSegmentRow, FlagSubject
from strata.tenancy.flags.writing import (
    Act,
    NewOverride,
    flag_of,
    with_flag,
    write_flag,
    write_override,
    write_segment,
)
from strata.tenancy.model import TenantStatus

OF_A_FLAG = (FlagSubject.FLAG, FlagSubject.OVERRIDE)
_EXPIRED_AT_ONCE = 500


class UnknownFlagError(NotFoundError):
    code = "unknown-flag"
    title = "No such flag"

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no flag «{key}»; strata flag list shows those there are.")


class Override(msgspec.Struct, frozen=True):
    tenant: str
    variant: str
    reason: str
    set_by: str
    set_at: datetime
    expires_at: datetime | None


class FlagView(msgspec.Struct, frozen=True):
    flag: Flag
    version: int
    created_at: datetime
    changed_at: datetime
    changed_by: str
    overrides: int
    """Tenants for whom it was set by hand."""


class FlagDesk:
    def __init__(
        self,
        catalog: AsyncEngine,
        loader: ContextLoader,
        announce_flags: Callable[[], Awaitable[None]],
        announce_tenant: Announce,
    ) -> None:
        self._catalog = catalog
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)
        self._loader = loader
        self._announce_flags = announce_flags
        self._announce_tenant = announce_tenant

    # Looking

    async def every(self) -> list[FlagView]:
        async with self._sessions() as session:
            return [_view(*row) for row in await session.execute(_views().order_by(FlagRow.key))]

    async def get(self, key: str) -> FlagView:
        async with self._sessions() as session:
            row = (await session.execute(_views().where(FlagRow.key == key))).one_or_none()
        if row is None:
            raise UnknownFlagError(key)
        return _view(*row)

    async def overrides(self, key: str) -> list[Override]:
        async with self._sessions() as session:
            rows = await session.execute(
                select(FlagOverrideRow, TenantRow.slug)
                .join(TenantRow, TenantRow.id == FlagOverrideRow.tenant_id)
                .where(FlagOverrideRow.flag == key)
                .order_by(TenantRow.slug)
            )
            return [
                Override(slug, row.variant, row.reason, row.set_by, row.set_at, row.expires_at) for row, slug in rows
            ]

    async def segments(self) -> list[Segment]:
        async with self._catalog.connect() as connection:
            return sorted((await read_flags(connection)).segments.values(), key=lambda each: each.name)

    async def history(self, name: str, paging: Paging, *, of_segment: bool = False) -> Page[FlagChange]:
        async with self._catalog.connect() as connection:
            return await changes_of(connection, name, (FlagSubject.SEGMENT,) if of_segment else OF_A_FLAG, paging)

    # Trying out

    async def try_flag(self, flag: Flag | None, key: str) -> DryRun:
        """What putting the flag there would change; None: what deleting it would."""
        async with self._catalog.connect() as connection:
            before = await read_flags(connection)
        return await dry_run(before, with_flag(before, key, flag), self._contexts)

    async def try_segment(self, segment: Segment) -> DryRun:
        async with self._catalog.connect() as connection:
            before = await read_flags(connection)
        after = FlagSet(before.version, before.flags, {**before.segments, segment.name: segment})
        return await dry_run(before, after, self._contexts)

    async def try_override(self, key: str, slug: str, variant: str | None) -> DryRun:
        async with self._sessions() as session:
            before = await read_flags(session)
            tenant_id = await _tenant_id(session, slug)
        _known_variant(before, key, variant)
        return await dry_run(before, before, self._contexts, OverrideWish(key, tenant_id, variant))

    async def try_undo(self, key: str) -> DryRun:
        async with self._sessions() as session:
            before = await read_flags(session)
            change = await last_standing(session, key, OF_A_FLAG)
        if change.subject == FlagSubject.OVERRIDE:
            assert change.tenant_id is not None  # noqa: S101 - overrides are of a tenant
            variant = None if change.before is None else str(change.before["variant"])
            return await dry_run(before, before, self._contexts, OverrideWish(key, change.tenant_id, variant))
        return await dry_run(before, with_flag(before, key, flag_of(change.before)), self._contexts)

    # Changing

    async def put(self, flag: Flag, actor: str, *, reason: str | None = None, if_match: str | None = None) -> FlagView:
        """Make it, or change it to this. The same again changes nothing."""
        async with self._sessions.begin() as session:
            before = await lock_flags(session)
            row = await session.get(FlagRow, flag.key)
            if if_match is not None:
                check_if_match(if_match, 0 if row is None else row.version)
            if before.flags.get(flag.key) != flag:
                await write_flag(session, before, flag.key, flag, Act(actor, reason))
        await self._announce_flags()
        return await self.get(flag.key)

    async def kill(self, key: str, actor: str, *, killed: bool, reason: str | None = None) -> FlagView:
        """Off for everybody, whatever else is said; or back to what else is said."""
        flag = (await self.get(key)).flag
        return await self.put(msgspec.structs.replace(flag, killed=killed), actor, reason=reason)

    async def delete(self, key: str, actor: str, *, reason: str | None = None) -> None:
        async with self._sessions.begin() as session:
            before = await lock_flags(session)
            if await session.get(FlagRow, key) is None:
                raise UnknownFlagError(key)
            await write_flag(session, before, key, None, Act(actor, reason))
        await self._announce_flags()

    async def put_segment(self, segment: Segment, actor: str, *, reason: str | None = None) -> Segment:
        async with self._sessions.begin() as session:
            before = await lock_flags(session)
            await write_segment(session, before, segment.name, segment, Act(actor, reason))
        await self._announce_flags()
        return segment

    async def delete_segment(self, name: str, actor: str, *, reason: str | None = None) -> None:
        async with self._sessions.begin() as session:
            before = await lock_flags(session)
            if await session.get(FlagSegmentRow, name) is None:
                message = f"There is no segment «{name}»."
                raise NotFoundError(message)
            await write_segment(session, before, name, None, Act(actor, reason))
        await self._announce_flags()

    async def set_override(self, key: str, slug: str, new: NewOverride | None, actor: str, reason: str = "") -> None:
        """None: what the flag gives by itself."""
        if (
            new is not None
            and new.expires_at is not None
            and (new.expires_at.tzinfo is None or new.expires_at <= datetime.now(UTC))
        ):
            raise invalid("/expires_at", "It expires at a later moment, with its time zone.")
        async with self._sessions.begin() as session:
            flags = await lock_flags(session)
            tenant_id = await _tenant_id(session, slug)
            if new is not None:
                _known_variant(flags, key, new.variant)
            document = None if new is None else msgspec.to_builtins(new)
            await write_override(session, key, tenant_id, document, Act(actor, reason or (new.reason if new else None)))
        await self._announce_tenant(tenant_id)

    async def undo(self, key: str, actor: str, *, reason: str | None = None) -> FlagChange:
        """Take back the last change of the flag, or of it for a tenant, that was not taken back yet."""
        async with self._sessions.begin() as session:
            before = await lock_flags(session)
            change = await last_standing(session, key, OF_A_FLAG)
            act = Act(actor, reason, undoes=change.id)
            if change.subject == FlagSubject.OVERRIDE:
                assert change.tenant_id is not None  # noqa: S101 - as above
                await write_override(session, key, change.tenant_id, change.before, act)
            else:
                await write_flag(session, before, key, flag_of(change.before), act)
        if change.tenant_id is not None:
            await self._announce_tenant(change.tenant_id)
        else:
            await self._announce_flags()
        return (await self.history(key, Paging(1))).items[0]

    async def end_expired_overrides(self) -> list[UUID]:
        """Those whose time is up; returns the tenants that this concerned."""
        async with self._sessions.begin() as session:
            await lock_flags(session)
            rows = (
                await session.scalars(
                    select(FlagOverrideRow)
                    .where(FlagOverrideRow.expires_at <= func.now())
                    .order_by(FlagOverrideRow.expires_at)
                    .limit(_EXPIRED_AT_ONCE)
                )
            ).all()
            for row in rows:
                await write_override(session, row.flag, row.tenant_id, None, Act(SYSTEM, "expired"))
        concerned = list(dict.fromkeys(row.tenant_id for row in rows))
        for tenant_id in concerned:
            await self._announce_tenant(tenant_id)
        return concerned

    def _contexts(self) -> AsyncIterator[Any]:
        return self._loader.every()


def _known_variant(flags: FlagSet, key: str, variant: str | None) -> None:
    flag = flags.flags.get(key)
    if flag is None:
        raise UnknownFlagError(key)
    if variant is not None and variant not in flag.variants:
        raise invalid("/variant", f"Flag «{key}» has no variant «{variant}»; it has {', '.join(flag.variants)}.")


async def _tenant_id(session: AsyncSession, slug: str) -> UUID:
    found: UUID | None = await session.scalar(
        select(TenantRow.id).where(TenantRow.slug == slug, TenantRow.status != TenantStatus.CLOSED)
    )
    if found is None:
        raise UnknownTenantError(slug)
    return found


def _views() -> Any:  # noqa: ANN401 - SQLAlchemy's select of a row and a number
    overrides = select(func.count()).where(FlagOverrideRow.flag == FlagRow.key).scalar_subquery()
    return select(FlagRow, overrides)


def _view(row: FlagRow, overrides: int) -> FlagView:
    return FlagView(
        msgspec.convert(row.document, Flag), row.version, row.created_at, row.changed_at, row.changed_by, overrides
    )
