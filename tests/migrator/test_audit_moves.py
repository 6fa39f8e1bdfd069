"""A tenant's audit goes where the tenant goes, and is what it was: also entries that are written while it moves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from strata.tenancy.audit import record
from strata.tenancy.audit.reading import every_entry, verify
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.moving import Movers
from tests.builders.platform import FIRST_SERVER, SECOND_CELL, Tenantry

WAY: list[tuple[Tier, dict[str, Any]]] = [
    (Tier.SCHEMA, {"cell": SECOND_CELL}),
    (Tier.DEDICATED, {"server": FIRST_SERVER}),
    (Tier.SHARED, {"cell": SECOND_CELL}),
]


@pytest.mark.parametrize("way", [WAY[:1], pytest.param(WAY, marks=pytest.mark.slow)], ids=["once", "every tier"])
async def test_the_chain_holds_wherever_the_tenant_goes(
    movers: Movers, mover_tenant: Tenantry, way: list[tuple[Tier, dict[str, Any]]]
) -> None:
    context = await mover_tenant(Tier.SHARED)
    for to, place in way:
        await _write(movers, context, f"before {to}")
        before = await _lines(movers, context)
        moving = asyncio.create_task(movers.move(context, to, **place))
        written = 0
        while not moving.done():
            await _write(movers, context, f"during {to} {written}")
            written += 1
            await asyncio.sleep(0.05)
        assert (await moving).target.tier is to
        now = await movers.runtime.contexts.fresh(context.id)
        assert now.placement.tier is to
        await _write(movers, context, f"after {to}")
        found = await verify(movers.runtime.tenants, now, [])
        assert (found.entries, found.findings) == (len(before) + written + 1, [])
        assert (await _lines(movers, context))[: len(before)] == before


async def _write(movers: Movers, context: TenantContext, subject: str) -> None:
    async with movers.runtime.tenants.transaction(context) as session:
        record(session, "product.change", subject, weight=1.50)


async def _lines(movers: Movers, context: TenantContext) -> list[str]:
    """With digests, byte for byte."""
    return [entry.line() async for entry in every_entry(movers.runtime.tenants, context)]
