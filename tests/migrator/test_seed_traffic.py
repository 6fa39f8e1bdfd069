"""`strata seed --traffic` while a move is under way: its account holds, and it would say so if a write were lost."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from strata.cli.traffic import Traffic, Verdict
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.inventory import stocked
from tests.builders.moving import Movers
from tests.builders.platform import Tenantry, admin_of
from tests.builders.site import Site

RATE = 40


@pytest.mark.slow
async def test_it_accounts_for_every_write_and_finds_lost_and_doubled_ones(
    movers: Movers, mover_tenant: Tenantry, moving_site: Site
) -> None:
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, skus=1, bins=1)
    traffic = _traffic(movers, moving_site, context)
    running = asyncio.create_task(traffic.run())
    await movers.move(context, Tier.SCHEMA)
    traffic.stop()
    await running
    verdict = await traffic.verdict()
    assert verdict.holds, verdict
    assert verdict.acknowledged > RATE
    assert verdict.reads > 0
    await _lose_one_and_double_another(movers, context, sorted(traffic.account.acknowledged)[:2])
    found: Verdict = await traffic.verdict()
    assert not found.holds
    assert [*found.missing, *found.doubled] == sorted(traffic.account.acknowledged)[:2]


def _traffic(movers: Movers, site: Site, context: TenantContext) -> Traffic:
    settings = movers.runtime.settings
    http = settings.http.model_copy(update={"host": "127.0.0.1", "port": site.port})
    runtime = msgspec.structs.replace(movers.runtime, settings=settings.model_copy(update={"http": http}))
    return Traffic(runtime, context, RATE)


async def _lose_one_and_double_another(movers: Movers, context: TenantContext, references: list[str]) -> None:
    now = await movers.runtime.contexts.fresh(context.id)
    async with admin_of(movers.runtime, now.placement.cell) as admin:
        await admin.execute(f'SET search_path = "{now.placement.schema_name}"')
        await admin.execute("SET session_replication_role = replica")
        await admin.execute("DELETE FROM movement WHERE reference = $1", references[0])
        await admin.execute(
            "INSERT INTO movement (tenant_id, kind, reference, created_by)"
            " SELECT tenant_id, kind, reference, created_by FROM movement WHERE reference = $1",
            references[1],
        )
