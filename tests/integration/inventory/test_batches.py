"""Many movements in one statement: what imports send."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, select

from strata.inventory.movements.models import Movement, MovementKind
from strata.inventory.movements.outcomes import Accepted, BatchOutcome, CancelledOut, Refused, Short
from strata.inventory.movements.posting import post_movements
from strata.inventory.movements.schemas import LineIn, MovementDocument
from strata.inventory.stock.models import StockBalance, StockLedgerLine
from strata.platform.ids import new_id
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.inventory import stocked
from tests.builders.platform import Tenantry
from tests.integration.inventory.test_posting_at_once import assert_sound


def document(kind: str, *lines: tuple[str, str, int]) -> MovementDocument:
    return MovementDocument(new_id(), MovementKind(kind), [LineIn(*line) for line in lines])


async def post(runtime: Runtime, context: TenantContext, *documents: MovementDocument) -> list[BatchOutcome]:
    async with runtime.tenants.transaction(context) as session:
        return await post_movements(session, documents, actor="import")


@pytest.mark.parametrize("tier", Tier)
async def test_each_is_judged_after_those_before_it(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    context = await tenant_on(tier)
    await stocked(runtime, context, skus=2, bins=2)
    outcomes = await post(
        runtime,
        context,
        document("pick", ("S-0", "B-0", 1)),
        document("receive", ("S-0", "B-0", 5)),
        document("pick", ("S-0", "B-0", 4), ("S-1", "B-0", 1)),
        document("pick", ("S-0", "B-0", 5)),
        document("receive", ("S-1", "nowhere", 5), ("s-1", "B-0", 5)),
        document("pick", ("S-0", "B-0", 1)),
        document("adjust", ("S-1", "B-1", 5), ("S-1", "B-1", -5)),
        document("count", ("S-1", "B-1", 3)),
    )
    assert [type(outcome) for outcome in outcomes] == [
        Short, Accepted, Short, Accepted, Refused, Short, CancelledOut, Accepted,
    ]  # fmt: skip
    third, refused = outcomes[2], outcomes[4]
    assert isinstance(third, Short)
    assert [(each.sku, each.wanted, each.on_hand) for each in third.shortages] == [("S-1", 1, 0)]
    assert isinstance(refused, Refused)
    assert [(each.line, each.field, each.code) for each in refused.problems] == [
        (0, "bin", "unknown"),
        (1, "sku", "unknown"),
    ]
    await assert_sound(runtime, context)
    async with runtime.tenants.reading(context) as session:
        assert await session.scalar(select(func.count()).select_from(Movement)) == 3
        assert await session.scalar(select(func.count()).select_from(StockLedgerLine)) == 3
        balances = (await session.execute(select(StockBalance.on_hand).order_by(StockBalance.on_hand))).scalars().all()
        assert balances == [0, 3]


async def test_a_thousand_movements_are_one_statement(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    goods = await stocked(runtime, context, skus=50, bins=4)
    documents = [
        document("receive", *((goods.skus[(n * 7 + k) % 50], goods.bins[k % 4], 1) for k in range(5)))
        for n in range(1000)
    ]
    outcomes = await post(runtime, context, *documents)
    assert outcomes == [Accepted()] * 1000
    async with runtime.tenants.reading(context) as session:
        assert await session.scalar(select(func.sum(StockBalance.on_hand))) == 5000
    await assert_sound(runtime, context)


async def test_nothing_to_post_is_nothing(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    assert await post(runtime, context) == []


async def test_batches_at_once_in_opposite_orders(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    goods = await stocked(runtime, context, skus=20, bins=2)
    documents = [document("receive", (sku, code, 1)) for sku in goods.skus for code in goods.bins]

    async def import_all(number: int) -> None:
        mine = [MovementDocument(new_id(), each.kind, each.lines) for each in documents]
        outcomes = await post(runtime, context, *(mine if number % 2 else reversed(mine)))
        assert outcomes == [Accepted()] * 40

    await asyncio.gather(*(import_all(number) for number in range(8)))
    async with runtime.tenants.reading(context) as session:
        assert await session.scalar(select(func.sum(StockBalance.on_hand))) == 8 * 40
    await assert_sound(runtime, context)
