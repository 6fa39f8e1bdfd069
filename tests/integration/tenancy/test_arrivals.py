"""Before a tenant arrives in another home, whoever works for it has connections there that know what it will ask."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from strata.platform.settings import CacheSettings, PoolSettings
from strata.runtime import Runtime
from strata.tenancy.cell import fence_wait
from strata.tenancy.cell.connection import TenantConnection
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Placement, Tier
from tests.builders.platform import FIRST_CELL, SECOND_CELL, Tenantry, admin_of, second_process

ASKED = text("SELECT count(*) AS arriving FROM product WHERE sku = :sku")
WITHIN_S = 60.0
PATIENT = CacheSettings(redis_timeout_s=30.0)
"""An answer that is late is not given up: on a busy machine nothing would be shown."""


def elsewhere(tenant: TenantContext) -> Placement:
    return Placement(cell=SECOND_CELL, tier=Tier.SHARED, schema_name="shared", epoch=tenant.placement.epoch)


async def ask(runtime: Runtime, tenant: TenantContext) -> None:
    async with runtime.tenants.reading(tenant) as session:
        await session.execute(ASKED, {"sku": "x"})


async def test_connections_to_the_new_home_are_open_and_know_the_tenants_statements(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SCHEMA)
    dedicated = await tenant_on(Tier.DEDICATED)
    coming = dedicated.placement
    async with second_process(runtime, cache=PATIENT, pool=PoolSettings(dedicated_size=3)) as other:
        await ask(other, await other.contexts.get_by_id(tenant.id))
        await other.arrivals.expect(tenant.id, coming, WITHIN_S)
        home = other.engines.opened(coming.cell)
        assert home is not None
        assert home.pool.idle == 3
        assert home.pool.in_use == 0
        for pooled in home.pool._idle:
            assert pooled.schema_name == coming.schema_name
            assert any("arriving" in statement for statement in pooled.statements())
            assert pooled.is_clean()
        before = {pooled.driver.get_server_pid() for pooled in home.pool._idle}
        # They serve whoever comes, as if new: here the tenant that really lives there.
        async with other.tenants.transaction(dedicated) as session:
            await session.execute(ASKED, {"sku": "x"})
            assert await session.scalar(text("SELECT pg_backend_pid()")) in before


async def test_they_know_what_is_sent_with_a_commit_too(
    runtime: Runtime, tenant_on: Tenantry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The audit's entries are not prepared, and whoever writes them holds the tenant's chain until they are written."""
    tenant, dedicated = await tenant_on(Tier.SCHEMA), await tenant_on(Tier.DEDICATED)
    said: list[tuple[str, BaseException | None]] = []
    seal_off = TenantConnection.seal_off

    def listened_to(connection: TenantConnection) -> None:
        seal_off(connection)
        connection.add_query_logger(lambda query: said.append((query.query, query.exception)))

    monkeypatch.setattr(TenantConnection, "seal_off", listened_to)
    async with second_process(runtime, cache=PATIENT, pool=PoolSettings(dedicated_size=1)) as other:
        await ask(other, await other.contexts.get_by_id(tenant.id))
        await other.arrivals.expect(tenant.id, dedicated.placement, WITHIN_S)
    assert [error for query, error in said if query.startswith("EXPLAIN INSERT INTO audit_entry")] == [None]


async def test_connections_that_served_others_learn_the_schema(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant, resident = await tenant_on(Tier.SHARED), await tenant_on(Tier.SCHEMA)
    async with second_process(runtime, cache=PATIENT, pool=PoolSettings(shared_size=4)) as other:
        await ask(other, await other.contexts.get_by_id(tenant.id))
        await other.arrivals.expect(tenant.id, resident.placement, WITHIN_S)
        home = other.engines.opened(FIRST_CELL)
        assert home is not None
        known = [pooled for pooled in home.pool._idle if pooled.schema_name == resident.placement.schema_name]
        assert len(known) == 2, "half of a pool that others use too"
        await ask(other, resident)
        await ask(other, tenant)


async def test_who_does_not_work_for_the_tenant_opens_nothing(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    async with second_process(runtime, cache=PATIENT) as other:
        await other.arrivals.expect(tenant.id, elsewhere(tenant), WITHIN_S)
        assert other.engines.opened(SECOND_CELL) is None


async def test_nothing_is_opened_beyond_the_budget(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant, first, second = (
        await tenant_on(Tier.SHARED),
        await tenant_on(Tier.DEDICATED),
        await tenant_on(Tier.DEDICATED),
    )
    async with second_process(runtime, cache=PATIENT, pool=PoolSettings(dedicated_size=2, dedicated_budget=2)) as other:
        await ask(other, await other.contexts.get_by_id(tenant.id))
        async with other.tenants.reading(first) as session:
            await session.execute(ASKED, {"sku": "x"})
            await other.arrivals.expect(tenant.id, second.placement, WITHIN_S)
            opened = other.engines.opened(second.placement.cell)
            assert opened is not None
            assert opened.pool.idle == 1
            # And what was opened ahead goes first when somebody needs a connection.
            async with other.tenants.reading(first) as another:
                await another.execute(ASKED, {"sku": "x"})
            assert opened.pool.idle == 0


async def test_a_new_home_that_does_not_answer_is_nobodys_failure(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    async with second_process(runtime, cache=PATIENT) as other:
        await ask(other, await other.contexts.get_by_id(tenant.id))
        nowhere = Placement(cell="no-such-cell", tier=Tier.SHARED, schema_name="shared", epoch=1)
        await other.arrivals.expect(tenant.id, nowhere, WITHIN_S)
        await ask(other, tenant)


async def test_without_redis_nobody_is_asked_and_nobody_waits(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    async with second_process(runtime, redis_url=SecretStr("redis://127.0.0.1:1")) as alone:
        await alone.arrivals.expect(tenant.id, elsewhere(tenant), 3600.0)
        await alone.arrivals.opened(tenant.id)
        await ask(alone, tenant)


async def test_who_waits_at_a_fence_looks_when_it_is_said_to_be_open(
    runtime: Runtime, tenant_on: Tenantry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence_wait, "_FIRST_PROBE_S", 3600.0)
    tenant = await tenant_on(Tier.SHARED)

    async def set_fence(state: str) -> None:
        async with admin_of(runtime, tenant.placement.cell) as admin:
            await admin.execute("UPDATE strata.fence SET state = $2 WHERE tenant_id = $1", tenant.id, state)

    async with second_process(runtime, cache=PATIENT) as other:
        await set_fence("moving")
        waiting = asyncio.create_task(ask(other, tenant))
        while not other.tenants._entrance._fence._probers:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        await set_fence("active")
        await other.arrivals.opened(tenant.id)
        await waiting
