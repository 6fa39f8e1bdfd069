"""strata events: what consumers could not deal with is seen, handed over again, given up; usage and aggregates."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, text

from strata.events import relaying
from strata.inventory.alerts.consumer import CONSUMER as LOW_STOCK
from strata.inventory.alerts.models import StockAlert
from strata.inventory.alerts.repository import set_threshold
from strata.inventory.events import StockMoved
from strata.inventory.products.repository import product_by_sku
from strata.platform.ids import new_id
from strata.platform.settings import EventSettings
from strata.runtime import Runtime
from strata.tenancy.events.consumers import TenantConsumer
from strata.tenancy.events.types import Delivery
from strata.tenancy.model import Tier
from strata.tenancy.session import TenantSession
from tests.builders.command import Command
from tests.builders.events import all_told
from tests.builders.inventory import move, stocked
from tests.builders.platform import Tenantry, second_process


async def fail(_session: TenantSession, _deliveries: Sequence[Delivery]) -> None:
    message = "this one I cannot deal with"
    raise RuntimeError(message)


async def test_staff_see_retry_and_discard_dead_letters(runtime: Runtime, tenant_on: Tenantry, strata: Command) -> None:
    context = await tenant_on(Tier.SCHEMA)
    await stocked(runtime, context, skus=1, bins=1, on_hand=10)
    async with runtime.tenants.transaction(context) as session:
        await set_threshold(session, (await product_by_sku(session, "S-0")).id, 5)
        await move(session, "pick", ("S-0", "B-0", 6))
    # The real consumer has had a bad day, and one has been there that this version no longer has.
    names = (LOW_STOCK.name, "tests.of-a-later-version")
    failing = [TenantConsumer(name, (StockMoved,), fail) for name in names]
    async with (
        second_process(runtime, events=EventSettings(tries=1, longest_pause_s=0.1)) as impatient,
        relaying(impatient, failing),
    ):
        await all_told(runtime, context)

    letters = (await strata.json("events", "dead", context.slug))["dead_letters"]
    assert {(each["consumer"], each["type"]) for each in letters} == {(name, "stock.moved") for name in names}
    assert all("this one I cannot deal with" in each["error"] for each in letters)
    assert (await strata("events", "dead", context.slug)).out.count("stock.moved v1") == len(letters)
    ours = [each["id"] for each in letters if each["consumer"] == LOW_STOCK.name]
    others = [each["id"] for each in letters if each["consumer"] != LOW_STOCK.name]

    for letter in ours:
        assert await strata.json("events", "retry", context.slug, letter) == {"retried": letter}
    async with runtime.tenants.reading(context) as session:
        assert len(list(await session.scalars(select(StockAlert)))) == 1
    refused = await strata("events", "retry", context.slug, others[0], "--json")
    assert (refused.code, refused.error["code"]) == (1, "no-consumer")
    for letter in others:
        assert await strata.json("events", "discard", context.slug, letter) == {"discarded": letter}
    assert await strata.json("events", "dead", context.slug) == {"dead_letters": []}
    assert "No dead letters." in (await strata("events", "dead", context.slug)).out
    refused = await strata("events", "discard", context.slug, str(new_id()), "--json")
    assert (refused.code, refused.error["code"]) == (1, "no-dead-letter")


async def test_usage_is_shown_and_aggregates_are_made_again(
    runtime: Runtime, tenant_on: Tenantry, strata: Command
) -> None:
    context = await tenant_on(Tier.SHARED)
    assert "Nothing in" in (await strata("usage", context.slug)).out
    await stocked(runtime, context, skus=2, bins=1, on_hand=10)
    async with relaying(runtime):
        await all_told(runtime, context)
    usage = (await strata.json("usage", context.slug))["totals"]
    assert {each["meter"]: each["amount"] for each in usage}["movements"] == 1
    async with runtime.tenants.transaction(context) as session:
        await session.execute(text("UPDATE stock_by_warehouse SET on_hand = 3"))
    assert (await strata.json("events", "rebuild", context.slug))["changed"] > 0
    assert (await strata.json("events", "rebuild", context.slug)) == {"changed": 0}
