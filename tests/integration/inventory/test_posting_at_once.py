"""Many who move the same stock at the same time."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import text

from strata.inventory.movements.errors import StockShortageError
from strata.platform.settings import PoolSettings
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.inventory import move, stocked
from tests.builders.platform import Tenantry, second_process

_UNSOUND = text(
    """
    SELECT b.id FROM stock_balance b LEFT JOIN stock_ledger l ON l.balance_id = b.id
    GROUP BY b.tenant_id, b.id, b.on_hand, b.sequence
    HAVING b.on_hand <> coalesce(sum(l.quantity), 0)
        OR b.sequence <> count(l.id)
        OR b.sequence <> coalesce(max(l.sequence), 0)
        OR b.on_hand < 0
    UNION ALL
    SELECT balance_id FROM (
        SELECT balance_id, on_hand_after,
               sum(quantity) OVER (PARTITION BY balance_id ORDER BY sequence) AS counted
        FROM stock_ledger
    ) AS history WHERE on_hand_after <> counted
    """
)


async def assert_sound(runtime: Runtime, context: TenantContext) -> None:
    """Sum of movements = balance, at every line; sequences begin at 1 and have no gap; nothing below nothing."""
    async with runtime.tenants.reading(context) as session:
        assert (await session.execute(_UNSOUND)).all() == []


async def on_hand(runtime: Runtime, context: TenantContext) -> int:
    async with runtime.tenants.reading(context) as session:
        return int(await session.scalar(text("SELECT coalesce(sum(on_hand), 0) FROM stock_balance")) or 0)


@pytest.mark.parametrize("tier", Tier)
async def test_forty_buyers_of_fifteen_units(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    context = await tenant_on(tier)
    goods = await stocked(runtime, context, skus=1, bins=1, on_hand=15)

    async def buy() -> bool:
        try:
            async with runtime.tenants.transaction(context) as session:
                await move(session, "pick", (goods.skus[0], goods.bins[0], 1))
        except StockShortageError:
            return False
        return True

    assert sum(await asyncio.gather(*(buy() for _ in range(40)))) == 15
    assert await on_hand(runtime, context) == 0
    await assert_sound(runtime, context)


async def test_transfers_in_opposite_orders_do_not_deadlock(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    goods = await stocked(runtime, context, skus=4, bins=3, on_hand=1000)
    async with second_process(runtime, pool=PoolSettings(shared_size=12)) as other:

        async def shuffle(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(12):
                lines = [(dice.choice(goods.skus), *pair) for pair in (dice.sample(goods.bins, 2) for _ in range(5))]
                async with other.tenants.transaction(context) as session:
                    await move(session, "transfer", *((sku, a, 1 + n, b) for n, (sku, a, b) in enumerate(lines)))

        await asyncio.gather(*(shuffle(seed) for seed in range(12)))
    assert await on_hand(runtime, context) == 12_000
    await assert_sound(runtime, context)


async def test_balances_made_at_once_do_not_deadlock(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    goods = await stocked(runtime, context, skus=6, bins=6)
    places = [(sku, code) for sku in goods.skus for code in goods.bins]
    async with second_process(runtime, pool=PoolSettings(shared_size=12)) as other:

        async def receive(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(6):
                chosen = dice.sample(places, 9)
                async with other.tenants.transaction(context) as session:
                    await move(session, "receive", *((sku, code, 1) for sku, code in chosen))

        await asyncio.gather(*(receive(seed) for seed in range(12)))
    assert await on_hand(runtime, context) == 12 * 6 * 9
    await assert_sound(runtime, context)


async def test_counts_and_picks_at_once_add_up(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    goods = await stocked(runtime, context, skus=1, bins=1, on_hand=500)
    place = (goods.skus[0], goods.bins[0])

    async def act(number: int) -> None:
        kind, quantity = (("count", 400), ("pick", 3), ("receive", 2), ("adjust", -1))[number % 4]
        async with runtime.tenants.transaction(context) as session:
            await move(session, kind, (*place, quantity))

    await asyncio.gather(*(act(number) for number in range(60)))
    await assert_sound(runtime, context)
