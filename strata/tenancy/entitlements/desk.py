"""Where staff see and change what a tenant is entitled to; every act is audited, and known to every process at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from strata.platform.errors import InvalidInputError, NotFoundError, UnavailableError
from strata.tenancy.catalog.audit import SYSTEM, record
from strata.tenancy.catalog.tables import EntitlementRow, PlacementRow, TenantRow
from strata.tenancy.catalog.tenants import Announce, locked_tenant
from strata.tenancy.entitlements.grants import Entitled, Grant, GrantKind, entitled
from strata.tenancy.entitlements.plan_change import PlanChange, plan_change
from strata.tenancy.errors import UnknownTenantError
from strata.tenancy.model import TenantStatus, Tier
from strata.tenancy.plans import Limits, Plan, catalogue, plan_held, plan_named

Counted = Callable[[UUID], Awaitable[Mapping[str, int]]]
"""What of each limit a tenant has in use, counted in its cell; those that nobody counts are left out."""

_EXPIRED_AT_ONCE = 500
_FEATURE_PATTERN = r"^[a-z][a-z0-9-]{0,62}$"


class NewGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: GrantKind
    name: Annotated[str, msgspec.Meta(pattern=_FEATURE_PATTERN.replace("-]", "_-]"))]
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    amount: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    given: bool = True
    expires_at: datetime | None = None

    def grant(self) -> Grant:
        """Raises InvalidInputError: nobody shall be granted what no part of the platform knows."""
        match self.kind:
            case GrantKind.ADD_ON:
                catalogue().add_on(self.name)
                if self.amount == 0:
                    raise _invalid("/amount", "An add-on is granted once or more; to end it, revoke it.")
                return Grant(self.kind, self.name, self.amount or 1)
            case GrantKind.LIMIT:
                if self.name not in Limits.__struct_fields__:
                    raise _invalid(
                        "/name", f"There is no limit «{self.name}»; there are {', '.join(Limits.__struct_fields__)}."
                    )
                return Grant(self.kind, self.name, self.amount)
            case GrantKind.FEATURE:
                return Grant(self.kind, self.name, None, self.given)


class HeldGrant(msgspec.Struct, frozen=True):
    kind: GrantKind
    name: str
    amount: int | None
    given: bool
    reason: str
    granted_by: str
    granted_at: datetime
    expires_at: datetime | None


class TenantEntitlements(msgspec.Struct, frozen=True):
    slug: str
    plan: str
    plan_version: int
    newest_version: int
    """Of the plan: higher than `plan_version` for a tenant that keeps older terms."""
    entitled: Entitled
    grants: list[HeldGrant]


class EntitlementDesk:
    def __init__(self, catalog: AsyncEngine, announce: Announce, counted: Counted) -> None:
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)
        self._announce = announce
        self._counted = counted

    async def of(self, slug: str) -> TenantEntitlements:
        async with self._sessions() as session:
            tenant = await _tenant(session, slug)
            rows = await _current(session, tenant.id)
        plan = plan_held(tenant.plan, tenant.plan_version)
        return TenantEntitlements(
            slug,
            plan.name,
            plan.version,
            plan_named(plan.name).version,
            entitled(plan, [_grant(row) for row in rows]),
            [_held(row) for row in rows],
        )

    async def grant(self, slug: str, new: NewGrant, actor: str) -> TenantEntitlements:
        """In place of an earlier one of the same kind and name, which ends."""
        grant = new.grant()
        if not new.reason.strip():
            raise _invalid("/reason", "Say why: whoever finds it later wants to know.")
        if new.expires_at is not None and new.expires_at.tzinfo is None:
            raise _invalid("/expires_at", "A moment needs its time zone, as in 2027-01-31T00:00:00Z.")
        if new.expires_at is not None and new.expires_at <= datetime.now(UTC):
            raise _invalid("/expires_at", "It would have expired already; choose a later moment.")
        async with self._sessions.begin() as session:
            tenant = await locked_tenant(session, slug)
            await _end(session, tenant.id, new.kind, new.name, actor, "replaced")
            session.add(
                EntitlementRow(
                    tenant_id=tenant.id,
                    kind=grant.kind,
                    name=grant.name,
                    amount=grant.amount,
                    given=grant.given,
                    reason=new.reason.strip(),
                    granted_by=actor,
                    expires_at=new.expires_at,
                )
            )
            record(session, actor, "entitlement.grant", slug, tenant_id=tenant.id, detail=msgspec.to_builtins(new))
        await self._announce(tenant.id)
        return await self.of(slug)

    async def revoke(self, slug: str, kind: GrantKind, name: str, reason: str, actor: str) -> TenantEntitlements:
        """What remains is what the plan and the other grants give."""
        async with self._sessions.begin() as session:
            tenant = await locked_tenant(session, slug)
            if not await _end(session, tenant.id, kind, name, actor, reason):
                message = f"«{slug}» has no {kind.value} «{name}» that was granted to it."
                raise NotFoundError(message)
            detail: dict[str, object] = {"kind": kind.value, "name": name, "reason": reason}
            record(session, actor, "entitlement.revoke", slug, tenant_id=tenant.id, detail=detail)
        await self._announce(tenant.id)
        return await self.of(slug)

    async def preview(self, slug: str, plan: str, version: int | None = None) -> PlanChange:
        """`version` None: the newest. Changes nothing; counts in the tenant's cell what is in use."""
        wanted = _wanted(plan, version)
        async with self._sessions() as session:
            tenant = await _tenant(session, slug)
            grants = [_grant(row) for row in await _current(session, tenant.id)]
            tier = await session.scalar(select(PlacementRow.tier).where(PlacementRow.tenant_id == tenant.id))
        used, uncounted = await self._used(tenant.id)
        held = plan_held(tenant.plan, tenant.plan_version)
        known_tier = None if tier is None else Tier(tier)
        return plan_change(slug, held, wanted, grants, tier=known_tier, used=used, uncounted=uncounted)

    async def change_plan(
        self, slug: str, plan: str, actor: str, *, version: int | None = None, reason: str | None = None
    ) -> PlanChange:
        """Move the tenant to the plan; returns what that changed. Grants stay; what is in use above a limit stays too."""
        wanted = _wanted(plan, version)
        change = await self.preview(slug, plan, version)
        async with self._sessions.begin() as session:
            tenant = await locked_tenant(session, slug)
            detail: dict[str, object] = {
                "from": f"{tenant.plan} v{tenant.plan_version}",
                "to": f"{wanted.name} v{wanted.version}",
                "reason": reason,
            }
            record(session, actor, "tenant.plan", slug, tenant_id=tenant.id, detail=detail)
            tenant.plan, tenant.plan_version = wanted.name, wanted.version
        await self._announce(tenant.id)
        return change

    async def end_expired(self) -> list[UUID]:
        """Write down that what has expired is over, and tell everybody; returns the tenants that this concerned."""
        async with self._sessions.begin() as session:
            rows = (
                await session.scalars(
                    select(EntitlementRow)
                    .where(EntitlementRow.ended_at.is_(None), EntitlementRow.expires_at <= func.now())
                    .order_by(EntitlementRow.expires_at)
                    .limit(_EXPIRED_AT_ONCE)
                    .with_for_update(skip_locked=True)
                )
            ).all()
            for row in rows:
                row.ended_at, row.ended_by, row.ended_why = row.expires_at, SYSTEM, "expired"
                detail: dict[str, object] = {"kind": row.kind, "name": row.name}
                record(session, SYSTEM, "entitlement.expire", row.name, tenant_id=row.tenant_id, detail=detail)
        concerned = list(dict.fromkeys(row.tenant_id for row in rows))
        for tenant_id in concerned:
            await self._announce(tenant_id)
        return concerned

    async def _used(self, tenant_id: UUID) -> tuple[Mapping[str, int], str | None]:
        try:
            return await self._counted(tenant_id), None
        except (UnavailableError, UnknownTenantError) as error:
            # One whose cell is away, or which nobody is routed to, can still be looked at.
            return {}, error.detail


async def _tenant(session: AsyncSession, slug: str) -> TenantRow:
    row = await session.scalar(select(TenantRow).where(TenantRow.slug == slug, TenantRow.status != TenantStatus.CLOSED))
    if row is None:
        raise UnknownTenantError(slug)
    return row


async def _current(session: AsyncSession, tenant_id: UUID) -> Sequence[EntitlementRow]:
    """As contexts count them (facets/entitlements.py)."""
    rows = await session.scalars(
        select(EntitlementRow)
        .where(
            EntitlementRow.tenant_id == tenant_id,
            EntitlementRow.ended_at.is_(None),
            func.coalesce(EntitlementRow.expires_at > func.now(), True),
        )
        .order_by(EntitlementRow.kind, EntitlementRow.name)
    )
    return rows.all()


async def _end(session: AsyncSession, tenant_id: UUID, kind: GrantKind, name: str, actor: str, why: str) -> bool:
    row = await session.scalar(
        select(EntitlementRow).where(
            EntitlementRow.tenant_id == tenant_id,
            EntitlementRow.kind == kind,
            EntitlementRow.name == name,
            EntitlementRow.ended_at.is_(None),
        )
    )
    if row is None:
        return False
    row.ended_at, row.ended_by, row.ended_why = datetime.now(UTC), actor, why
    # Before another one of that name: only one may be current.
    await session.flush()
    return True


def _wanted(plan: str, version: int | None) -> Plan:
    return plan_named(plan) if version is None else plan_held(plan, version)


def _grant(row: EntitlementRow) -> Grant:
    return Grant(GrantKind(row.kind), row.name, row.amount, row.given)


def _held(row: EntitlementRow) -> HeldGrant:
    return HeldGrant(
        GrantKind(row.kind),
        row.name,
        row.amount,
        row.given,
        row.reason,
        row.granted_by,
        row.granted_at,
        row.expires_at,
    )


def _invalid(path: str, detail: str) -> InvalidInputError:
    return InvalidInputError(detail, extra={"errors": [{"path": path, "message": detail}]})
