"""Entitlements in the catalog: kept over plan changes, ended in time, known to every process at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from strata.platform.errors import InvalidInputError, NotFoundError
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.entitlements.desk import NewGrant
from strata.tenancy.entitlements.grants import GrantKind
from strata.tenancy.entitlements.plan_change import Over
from strata.tenancy.model import Tier
from tests.builders.contexts import cache_process, eventually
from tests.builders.inventory import stocked
from tests.builders.platform import ACTOR, Tenantry
from tests.servers import RedisServer


@pytest.fixture
async def tenant(tenant_on: Tenantry) -> TenantContext:
    return await tenant_on(Tier.SHARED, plan="starter")


async def now(runtime: Runtime, tenant: TenantContext) -> TenantContext:
    return await runtime.contexts.get_by_id(tenant.id)


async def test_a_grant_shows_at_once_in_every_process(
    runtime: Runtime, tenant: TenantContext, redis_server: RedisServer
) -> None:
    async with cache_process(runtime.catalog_engine, redis_server.url) as other:
        assert "sso" not in (await other.cache.get_by_id(tenant.id)).features
        found = await runtime.entitlements.grant(tenant.slug, NewGrant(GrantKind.FEATURE, "sso", "pilot"), ACTOR)
        assert [(each.name, each.reason, each.granted_by) for each in found.grants] == [("sso", "pilot", ACTOR)]
        assert "sso" in (await now(runtime, tenant)).features
        await eventually(lambda: other.cache.peek(tenant.id) is None)
        assert "sso" in (await other.cache.get_by_id(tenant.id)).features


async def test_a_plan_change_is_foretold_and_erases_no_grant(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED, plan="starter")
    await stocked(runtime, tenant, skus=3, bins=2, on_hand=1)
    desk = runtime.entitlements
    await desk.grant(tenant.slug, NewGrant(GrantKind.LIMIT, "skus", "contract 12", 2), ACTOR)
    await desk.grant(tenant.slug, NewGrant(GrantKind.ADD_ON, "extra-locations", "bought", 2), ACTOR)

    foretold = await desk.preview(tenant.slug, "free")
    assert foretold.over == (Over("skus", 3, 2),)
    assert foretold.kept == ("add-on extra-locations x 2", "limit skus = 2")
    assert (await now(runtime, tenant)).plan == "starter", "a preview changes nothing"

    done = await desk.change_plan(tenant.slug, "free", ACTOR, reason="asked for it")
    assert done == foretold
    context = await now(runtime, tenant)
    assert (context.plan, context.plan_version) == ("free", 1)
    assert (context.limits.skus, context.limits.locations) == (2, 200 + 1000)
    assert "transfers" not in context.features
    back = await desk.change_plan(tenant.slug, "starter", ACTOR)
    assert back.features_gained == ("transfers",)
    assert (await now(runtime, tenant)).limits.skus == 2
    actions = [row.action for row in await runtime.provisioning.history(tenant.id)]
    assert actions.count("tenant.plan") == 2


async def test_a_tenant_keeps_the_version_it_bought(runtime: Runtime, tenant: TenantContext) -> None:
    with pytest.raises(InvalidInputError, match="no version 9"):
        await runtime.entitlements.change_plan(tenant.slug, "starter", ACTOR, version=9)
    found = await runtime.entitlements.of(tenant.slug)
    assert (found.plan, found.plan_version, found.newest_version) == ("starter", 1, 1)


async def test_what_is_replaced_or_revoked_stays_in_the_books(runtime: Runtime, tenant: TenantContext) -> None:
    desk = runtime.entitlements
    for amount in (5, 6):
        await desk.grant(tenant.slug, NewGrant(GrantKind.LIMIT, "users", f"now {amount}", amount), ACTOR)
    assert (await now(runtime, tenant)).limits.users == 6
    left = await desk.revoke(tenant.slug, GrantKind.LIMIT, "users", "over", ACTOR)
    assert left.grants == []
    assert (await now(runtime, tenant)).limits.users == 10
    with pytest.raises(NotFoundError):
        await desk.revoke(tenant.slug, GrantKind.LIMIT, "users", "over", ACTOR)
    async with runtime.catalog_engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT amount, ended_why, ended_by FROM entitlement WHERE tenant_id = :id ORDER BY amount"),
            {"id": tenant.id},
        )
        assert [tuple(row) for row in rows] == [(5, "replaced", ACTOR), (6, "over", ACTOR)]


async def test_two_who_grant_the_same_at_once_leave_one(runtime: Runtime, tenant: TenantContext) -> None:
    grants = [NewGrant(GrantKind.LIMIT, "users", "race", amount) for amount in range(1, 7)]
    await asyncio.gather(*(runtime.entitlements.grant(tenant.slug, each, ACTOR) for each in grants))
    [only] = (await runtime.entitlements.of(tenant.slug)).grants
    assert (await now(runtime, tenant)).limits.users == only.amount


async def test_a_grant_for_a_time_ends_in_time(runtime: Runtime, tenant: TenantContext) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    await runtime.entitlements.grant(tenant.slug, NewGrant(GrantKind.FEATURE, "sso", "trial", expires_at=soon), ACTOR)
    assert "sso" in (await now(runtime, tenant)).features
    async with runtime.catalog_engine.begin() as connection:
        # The night passes; the context in the cache was made the day before.
        await connection.execute(
            text("UPDATE entitlement SET expires_at = now() - interval '1 second' WHERE tenant_id = :id"),
            {"id": tenant.id},
        )
    assert (await runtime.entitlements.of(tenant.slug)).grants == [], "expired is expired, written down or not"
    assert tenant.id in await runtime.entitlements.end_expired()
    assert "sso" not in (await now(runtime, tenant)).features
    assert tenant.id not in await runtime.entitlements.end_expired()
    last = (await runtime.provisioning.history(tenant.id))[-1]
    assert (last.action, last.actor, last.subject) == ("entitlement.expire", "system", "sso")


@pytest.mark.parametrize(
    "new",
    [
        NewGrant(GrantKind.FEATURE, "sso", "  "),
        NewGrant(GrantKind.FEATURE, "sso", "late", expires_at=datetime(2020, 1, 1, tzinfo=UTC)),
        NewGrant(GrantKind.FEATURE, "sso", "no zone", expires_at=datetime(2999, 1, 1)),  # noqa: DTZ001 - the point
    ],
)
async def test_a_grant_that_makes_no_sense_is_refused(runtime: Runtime, tenant: TenantContext, new: NewGrant) -> None:
    with pytest.raises(InvalidInputError):
        await runtime.entitlements.grant(tenant.slug, new, ACTOR)


async def test_a_deleted_tenant_leaves_none(runtime: Runtime, tenant_on: Tenantry) -> None:
    gone = await tenant_on(Tier.SCHEMA)
    await runtime.entitlements.grant(gone.slug, NewGrant(GrantKind.FEATURE, "sso", "pilot"), ACTOR)
    await runtime.provisioning.delete(gone.slug, ACTOR)
    async with runtime.catalog_engine.connect() as connection:
        left = await connection.scalar(text("SELECT count(*) FROM entitlement WHERE tenant_id = :id"), {"id": gone.id})
    assert left == 0
