"""A plan's limit stays exact while the tenant moves: counters and what they count arrive together."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import func, select

from strata.inventory.products.models import Product
from strata.inventory.products.repository import create_product, delete_product
from strata.inventory.products.schemas import ProductIn
from strata.inventory.quotas import Quota, QuotaCounter, QuotaExceededError
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.moving import Movers
from tests.builders.platform import SECOND_SERVER, Tenantry

LIMIT = 40


@pytest.mark.slow
async def test_a_quota_is_exact_across_a_move(movers: Movers, mover_tenant: Tenantry, moving_runtime: Runtime) -> None:
    context = await mover_tenant(Tier.SHARED)
    made = 0
    going = True

    async def make(number: int) -> None:
        nonlocal made
        count = 0
        mine: list[UUID] = []
        while going or count == 0:
            count += 1
            try:
                async with moving_runtime.tenants.transaction(context) as session:
                    product = await create_product(session, ProductIn(f"P-{number}-{count}", "P"), sku_limit=LIMIT)
            except QuotaExceededError as full:
                assert full.used == LIMIT
                for own in mine:
                    async with moving_runtime.tenants.transaction(context) as session:
                        await delete_product(session, own, if_match="*")
                mine.clear()
            else:
                made += 1
                mine.append(product.id)
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        makers = [group.create_task(make(number)) for number in range(4)]
        await movers.move(context, Tier.DEDICATED, server=SECOND_SERVER)
        going = False
        await asyncio.wait(makers)
    async with moving_runtime.tenants.reading(await moving_runtime.contexts.fresh(context.id)) as session:
        counted = await session.scalar(select(QuotaCounter.used).where(QuotaCounter.name == Quota.SKUS))
        there = await session.scalar(select(func.count()).select_from(Product).where(Product.active))
    assert counted == there
    assert there is not None
    assert 0 < there <= LIMIT < made
