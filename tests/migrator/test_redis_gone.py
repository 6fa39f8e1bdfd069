"""A move without Redis, from its start to after the flip: nobody is told of the new home, and everybody finds it."""

from __future__ import annotations

import pytest

from strata.migrator.phases import Phase, Wish
from strata.tenancy.model import Tier
from tests.builders.breakable import Breakable, kill, revive
from tests.builders.contexts import eventually
from tests.builders.platform import ACTOR, FIRST_CELL, SECOND_CELL, second_process
from tests.builders.site import serving
from tests.builders.traffic import assert_kept, traffic


@pytest.mark.slow
@pytest.mark.parametrize("there", [FIRST_CELL, SECOND_CELL])
async def test_requests_of_two_processes_find_the_new_home_without_redis(ground: Breakable, there: str) -> None:
    movers = ground.movers
    context = await ground.tenants(Tier.SHARED, cell=FIRST_CELL)
    async with (
        second_process(ground.runtime) as other,
        serving(other) as elsewhere,
        traffic(ground.site, context, writers=2) as ledger,
        elsewhere.client(context) as client,
    ):
        # A second process has the old placement in its cache, and nobody will tell it.
        assert (await client.get("/api/v1/products")).status_code == 200
        await kill(ground.redis)
        try:
            async with movers.working(move := await movers.start(context, Tier.SCHEMA, cell=there, retention_s=3600)):
                await movers.until(move, Phase.RETAINING)
                written = len(ledger.entries)
                answer = await client.post("/api/v1/products", json={"sku": "elsewhere", "name": "Elsewhere"})
                assert answer.status_code == 201, answer.text
                await eventually(lambda: len(ledger.entries) > written + 10, within_s=30)
                await movers.desk.ask(move.id, Wish.COMPLETE, ACTOR)
                await movers.until(move, Phase.COMPLETED)
        finally:
            await revive(ground.redis)
        found = await client.get("/api/v1/products", params={"limit": 200})
        assert "elsewhere" in {item["sku"] for item in found.json()["items"]}
    await assert_kept(ground.runtime, context, ledger)
    assert ledger.unknown == []
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {there: [f"t_{context.id.hex}"]}
