"""The three demo tenants, one a tier, and their stock."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import structlog

from strata.inventory.seeding import AssortmentName, assortment, seed_stock
from strata.platform.errors import ConflictError
from strata.runtime import Runtime
from strata.tenancy.catalog.audit import SYSTEM
from strata.tenancy.catalog.tenants import TenantSummary
from strata.tenancy.errors import UnknownTenantError
from strata.tenancy.facets.branding import BRANDING, Branding
from strata.tenancy.model import TenantStatus, Tier
from strata.tenancy.provisioning.tenants import NewTenant

log = structlog.get_logger(__name__)


class DemoTenant(msgspec.Struct, frozen=True):
    new: NewTenant
    assortment: AssortmentName
    branding: Branding


DEMO_TENANTS = (
    DemoTenant(
        NewTenant(slug="acme", name="Acme Hardware", tier=Tier.SHARED, plan="business"),
        AssortmentName.HARDWARE,
        Branding(product_name="Acme Stockroom", primary_color="#1f5f8b"),
    ),
    DemoTenant(
        NewTenant(slug="globex", name="Globex Electronics", tier=Tier.SCHEMA),
        AssortmentName.ELECTRONICS,
        Branding(product_name="Globex Warehouse", primary_color="#5b3a9e", secondary_color="#eee9f7"),
    ),
    DemoTenant(
        NewTenant(slug="initech", name="Initech Foods", tier=Tier.DEDICATED),
        AssortmentName.GROCERIES,
        Branding(product_name="Initech Pantry", primary_color="#2e6b3f", secondary_color="#e8f2ea", theme="auto"),
    ),
)


class SeedOutcome(msgspec.Struct, frozen=True):
    slug: str
    seeded: bool
    """False: it had been done before, or `reason` says why not."""
    reason: str | None = None
    products: int = 0
    bins: int = 0
    movements: int = 0


async def ensure_demo_tenants(runtime: Runtime) -> list[TenantSummary]:
    return [await _ensure(runtime, demo) for demo in DEMO_TENANTS]


async def _ensure(runtime: Runtime, demo: DemoTenant) -> TenantSummary:
    """One that is there stays as it is, wherever it has been moved."""
    new = demo.new
    try:
        tenant = await runtime.directory.get(new.slug)
    except UnknownTenantError:
        tenant = None
    if tenant is None or tenant.status in {TenantStatus.PROVISIONING, TenantStatus.CLOSING}:
        await runtime.provisioning.create(new, SYSTEM)
        await runtime.directory.set_document(new.slug, BRANDING.name, msgspec.to_builtins(demo.branding), SYSTEM)
        tenant = await runtime.directory.get(new.slug)
    return tenant


async def seed_demo_tenants(runtime: Runtime) -> list[SeedOutcome]:
    outcomes = []
    for demo in DEMO_TENANTS:
        tenant = await runtime.directory.get(demo.new.slug)
        if tenant.status is not TenantStatus.ACTIVE:
            outcomes.append(SeedOutcome(tenant.slug, seeded=False, reason=f"the tenant is {tenant.status}"))
            continue
        try:
            outcomes.append(await seed(runtime, tenant.id, demo.assortment))
        except ConflictError as error:
            # Somebody's own goods are in the way: no reason not to start.
            log.warning("no demo stock", tenant=tenant.slug, reason=error.detail)
            outcomes.append(SeedOutcome(tenant.slug, seeded=False, reason=error.detail))
    return outcomes


async def seed(runtime: Runtime, tenant_id: UUID, goods: AssortmentName) -> SeedOutcome:
    context = await runtime.contexts.fresh(tenant_id)
    made, done_before = await seed_stock(runtime.tenants, context, assortment(goods), datetime.now(UTC))
    if done_before:
        return SeedOutcome(context.slug, seeded=False)
    return SeedOutcome(context.slug, seeded=True, **msgspec.structs.asdict(made))
