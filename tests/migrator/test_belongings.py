"""What a tenant has of its own goes where it goes, also what is written while it moves: its audit, its fields and rules."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from strata.tenancy.audit import record
from strata.tenancy.audit.entries import EntryFilter
from strata.tenancy.audit.reading import every_entry, verify
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.moving import Movers
from tests.builders.own_rules import own_rules
from tests.builders.platform import FIRST_SERVER, SECOND_CELL, Tenantry

WAY: list[tuple[Tier, dict[str, Any]]] = [
    (Tier.SCHEMA, {"cell": SECOND_CELL}),
    (Tier.DEDICATED, {"server": FIRST_SERVER}),
    (Tier.SHARED, {"cell": SECOND_CELL}),
]
ACTION = "product.change"


@pytest.mark.parametrize("way", [WAY[:1], pytest.param(WAY, marks=pytest.mark.slow)], ids=["once", "every tier"])
async def test_they_hold_wherever_the_tenant_goes(
    movers: Movers, mover_tenant: Tenantry, way: list[tuple[Tier, dict[str, Any]]]
) -> None:
    context = await mover_tenant(Tier.SHARED)
    written: list[str] = []
    async with own_rules(movers.runtime, context) as rules:
        for to, place in way:
            written.append(await _write(movers, context, f"before {to}"))
            await rules.work()
            before = await _lines(movers, context)
            moving = asyncio.create_task(movers.move(context, to, **place))
            rounds = 0
            while not moving.done():
                written.append(await _write(movers, context, f"during {to} {len(written)}"))
                # Some rounds in each phase: more would take the processor from the move.
                if rounds % 8 == 0:
                    await rules.work()
                rounds += 1
                await asyncio.sleep(0.05)
            assert (await moving).target.tier is to
            now = await movers.runtime.contexts.fresh(context.id)
            assert now.placement.tier is to
            written.append(await _write(movers, context, f"after {to}"))
            await rules.work()
            await rules.check()
            assert (await verify(movers.runtime.tenants, now, [])).findings == []
            ours = every_entry(movers.runtime.tenants, now, EntryFilter(action=ACTION))
            assert [entry.subject async for entry in ours] == written
            assert (await _lines(movers, context))[: len(before)] == before


async def _write(movers: Movers, context: TenantContext, subject: str) -> str:
    async with movers.runtime.tenants.transaction(context) as session:
        record(session, ACTION, subject, weight=1.50)
    return subject


async def _lines(movers: Movers, context: TenantContext) -> list[str]:
    """With digests, byte for byte."""
    return [entry.line() async for entry in every_entry(movers.runtime.tenants, context)]
