"""What the inventory's consumers make of movements: stock by warehouse, alerts, usage."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import select, text

from strata.app import StrataApp
from strata.events import consumers, relaying
from strata.inventory.aggregates import consumer as aggregates
from strata.inventory.aggregates.models import WarehouseStock
from strata.inventory.aggregates.repository import differences
from strata.inventory.alerts.models import StockAlert
from strata.inventory.alerts.repository import remove_threshold, set_threshold
from strata.inventory.locations.schemas import BinIn, BinPatch, WarehouseIn, ZoneIn
from strata.inventory.locations.service import change_bin, create_bin, create_warehouse, create_zone
from strata.inventory.movements.errors import StockShortageError
from strata.inventory.movements.models import MovementKind
from strata.inventory.movements.posting import post_movements
from strata.inventory.movements.schemas import LineIn, MovementDocument
from strata.inventory.products.repository import product_by_sku
from strata.platform.ids import new_id
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from strata.tenancy.usage.meters import Meter
from tests.builders.events import all_told
from tests.builders.inventory import api_client, move, stocked
from tests.builders.platform import Tenantry


async def post(runtime: Runtime, context: TenantContext, kind: str, *lines: tuple[str, str, int]) -> None:
    async with runtime.tenants.transaction(context) as session:
        await move(session, kind, *lines)


async def second_warehouse(runtime: Runtime, context: TenantContext) -> str:
    """With a bin in it; returns the bin's code."""
    async with runtime.tenants.transaction(context) as session:
        warehouse = await create_warehouse(session, WarehouseIn("W2", "Second"))
        zone = await create_zone(session, ZoneIn(warehouse.id, "Z", "Zone"))
        await create_bin(session, BinIn(zone.id, "FAR"), location_limit=None)
    return "FAR"


async def by_warehouse(runtime: Runtime, context: TenantContext) -> list[int]:
    async with runtime.tenants.reading(context) as session:
        assert await differences(session) == []
        return sorted(await session.scalars(select(WarehouseStock.on_hand)))


@pytest.mark.parametrize("tier", Tier)
async def test_stock_by_warehouse_follows_the_ledger(
    runtime: Runtime, tenant_on: Tenantry, inventory_app: StrataApp, tier: Tier
) -> None:
    context = await tenant_on(tier)
    await stocked(runtime, context, skus=1, bins=2, on_hand=10)
    far = await second_warehouse(runtime, context)
    async with relaying(runtime):
        await post(runtime, context, "transfer", ("S-0", "B-0", 4, far))  # type: ignore[arg-type]
        await post(runtime, context, "pick", ("S-0", "B-1", 3))
        with pytest.raises(StockShortageError):
            await post(runtime, context, "pick", ("S-0", "B-1", 300))
        await post(runtime, context, "count", ("S-0", "B-1", 7))
        await all_told(runtime, context)
        async with api_client(inventory_app, runtime, context) as client:
            listed = (await client.get("/api/v1/stock/by-warehouse", params={"sku": "S-0"})).json()
            only = (await client.get("/api/v1/stock/by-warehouse", params={"warehouse": "W2"})).json()
            first = (await client.get("/api/v1/stock/by-warehouse", params={"limit": 1})).json()
            second = await client.get("/api/v1/stock/by-warehouse", params={"limit": 1, "cursor": first["next_cursor"]})
    assert [(item["warehouse"], item["on_hand"]) for item in listed["items"]] == [("W", 13), ("W2", 4)]
    assert [item["on_hand"] for item in only["items"]] == [4]
    assert [item["warehouse"] for item in second.json()["items"]] == ["W2"]
    assert await by_warehouse(runtime, context) == [4, 13]


async def test_made_anew_beside_writers_it_counts_nothing_twice(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SCHEMA)
    goods = await stocked(runtime, context, skus=3, bins=2)
    far = await second_warehouse(runtime, context)

    async def write(writer: int) -> None:
        chance = random.Random(writer)
        for _ in range(15):
            await post(runtime, context, "receive", (chance.choice(goods.skus), chance.choice([*goods.bins, far]), 5))

    async def rebuild() -> None:
        for _ in range(8):
            await aggregates.rebuild(runtime.tenants, context)
            await asyncio.sleep(0.02)

    async with relaying(runtime, [aggregates.CONSUMER]):
        await asyncio.gather(*(write(writer) for writer in range(4)), rebuild())
        await all_told(runtime, context)
    assert sum(await by_warehouse(runtime, context)) == 4 * 15 * 5


async def test_a_bin_takes_its_stock_along_into_another_warehouse(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    await stocked(runtime, context, skus=1, bins=2, on_hand=10)
    await second_warehouse(runtime, context)
    async with relaying(runtime, [aggregates.CONSUMER]):
        await all_told(runtime, context)
        async with runtime.tenants.transaction(context) as session:
            bin_id, zone_id = (
                await session.execute(
                    text("SELECT b.id, f.zone_id FROM bin b, bin f WHERE b.code = 'B-0' AND f.code = 'FAR'")
                )
            ).one()
            await change_bin(session, bin_id, BinPatch(zone_id=zone_id), if_match=None, location_limit=None)
        await post(runtime, context, "receive", ("S-0", "B-0", 1))
        await all_told(runtime, context)
    assert await by_warehouse(runtime, context) == [10, 11]


async def test_a_mistake_in_the_rows_is_found_and_mended(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    await stocked(runtime, context, skus=1, bins=1, on_hand=10)
    async with relaying(runtime, [aggregates.CONSUMER]):
        await all_told(runtime, context)
    async with runtime.tenants.transaction(context) as session:
        await session.execute(text("UPDATE stock_by_warehouse SET on_hand = 3"))
    async with runtime.tenants.reading(context) as session:
        (difference,) = await differences(session)
    assert (difference.expected, difference.found) == (10, 3)
    assert await aggregates.rebuild(runtime.tenants, context) == 1
    assert await by_warehouse(runtime, context) == [10]
    assert await aggregates.rebuild(runtime.tenants, context) == 0


async def test_an_alert_opens_once_and_closes(runtime: Runtime, tenant_on: Tenantry, inventory_app: StrataApp) -> None:
    context = await tenant_on(Tier.SHARED)
    await stocked(runtime, context, skus=2, bins=2, on_hand=10)

    async def states() -> list[bool]:
        async with runtime.tenants.reading(context) as session:
            return [
                each.closed_at is None for each in await session.scalars(select(StockAlert).order_by(StockAlert.id))
            ]

    async with relaying(runtime), api_client(inventory_app, runtime, context) as client:
        product = (await client.get("/api/v1/products/by-sku/S-0")).json()["id"]
        answer = await client.put(f"/api/v1/products/{product}/threshold", json={"minimum": 15})
        assert (answer.status_code, answer.json()["minimum"]) == (200, 15)
        assert await states() == []
        for _ in range(3):
            await post(runtime, context, "pick", ("S-0", "B-0", 3))
        await all_told(runtime, context)
        assert await states() == [True]
        listed = (await client.get("/api/v1/stock/alerts", params={"open": "true"})).json()["items"]
        assert [(each["sku"], each["minimum"]) for each in listed] == [("S-0", 15)]
        await post(runtime, context, "receive", ("S-0", "B-1", 9))
        await all_told(runtime, context)
        assert await states() == [False]
        await post(runtime, context, "pick", ("S-0", "B-1", 9))
        await all_told(runtime, context)
        assert await states() == [False, True]
        assert (await client.delete(f"/api/v1/products/{product}/threshold")).status_code == 204
        assert await states() == [False, False]
        assert (await client.get(f"/api/v1/products/{product}/threshold")).status_code == 404


async def test_an_alert_opens_once_however_many_look_at_the_same_moment(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SCHEMA)
    await stocked(runtime, context, skus=1, bins=1, on_hand=10)

    async def put(minimum: int) -> None:
        async with runtime.tenants.transaction(context) as session:
            product = await product_by_sku(session, "S-0")
            await set_threshold(session, product.id, minimum)

    await asyncio.gather(*(put(minimum) for minimum in range(20, 28)))
    async with runtime.tenants.transaction(context) as session:
        assert len(list(await session.scalars(select(StockAlert)))) == 1
        await remove_threshold(session, (await product_by_sku(session, "S-0")).id)


async def test_usage_is_counted_once_by_month(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    await stocked(runtime, context, skus=2, bins=1, on_hand=5)
    usage = next(each for each in consumers(runtime) if each.name == "tenancy.usage")
    repeated = [*consumers(runtime), usage]
    async with relaying(runtime, repeated):
        await post(runtime, context, "pick", ("S-0", "B-0", 1), ("S-1", "B-0", 1))
        await all_told(runtime, context)
    lines = [line for line in await runtime.usage.months(context.id) if line.meter not in set(Meter)]
    assert len({line.period for line in lines}) == 1
    counted = {line.meter: line.amount for line in lines}
    assert counted == {"events": 3, "movements": 2, "products-created": 2, "stock-changes": 4}


async def test_a_batch_of_movements_is_one_event(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    await stocked(runtime, context, skus=2, bins=1)
    documents = [
        MovementDocument(id=new_id(), kind=MovementKind.RECEIVE, lines=[LineIn(f"S-{n % 2}", "B-0", 1)])
        for n in range(20)
    ]
    async with runtime.tenants.transaction(context) as session:
        await post_movements(session, documents, actor="tests")
    async with relaying(runtime):
        await all_told(runtime, context)
    seen = {line.meter: line.amount for line in await runtime.usage.months(context.id)}
    assert (seen["movements"], seen["stock-changes"], seen["events"]) == (20, 2, 2)
