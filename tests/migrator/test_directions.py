"""From any placement to any other, while it works: nothing lost, nothing doubled, nothing left behind."""

from __future__ import annotations

import pytest

from strata.tenancy.model import Tier
from tests.builders.moving import Movers, Neighbour
from tests.builders.platform import FIRST_CELL, FIRST_SERVER, SECOND_CELL, SECOND_SERVER, Tenantry
from tests.builders.site import Site
from tests.builders.traffic import assert_kept, traffic

QUICK = [
    (Tier.DEDICATED, Tier.SHARED, SECOND_CELL),
]
SLOW = [
    (Tier.SCHEMA, Tier.SCHEMA, SECOND_CELL),
    (Tier.SHARED, Tier.SCHEMA, FIRST_CELL),
    (Tier.SHARED, Tier.DEDICATED, SECOND_SERVER),
    (Tier.SHARED, Tier.SCHEMA, SECOND_CELL),
    (Tier.SHARED, Tier.SHARED, SECOND_CELL),
    (Tier.SHARED, Tier.DEDICATED, FIRST_SERVER),
    (Tier.SCHEMA, Tier.SHARED, FIRST_CELL),
    (Tier.SCHEMA, Tier.DEDICATED, SECOND_SERVER),
    (Tier.DEDICATED, Tier.SCHEMA, FIRST_CELL),
    (Tier.DEDICATED, Tier.DEDICATED, SECOND_SERVER),
]


@pytest.mark.parametrize(
    ("tier", "to", "where"),
    [*QUICK, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)],
    ids=str,
)
async def test_a_tenant_moves_while_it_works(
    movers: Movers, mover_tenant: Tenantry, moving_site: Site, neighbour: Neighbour, tier: Tier, to: Tier, where: str
) -> None:
    context = await mover_tenant(tier)
    async with traffic(moving_site, context) as ledger:
        place = {"server": where} if to is Tier.DEDICATED else {"cell": where}
        moved = await movers.move(context, to, **place)
    now = await movers.runtime.contexts.fresh(context.id)
    assert (now.placement.tier, now.placement.cell) == (to, moved.target.cell)
    assert now.placement.epoch > context.placement.epoch
    await assert_kept(movers.runtime, context, ledger)
    assert await movers.remains(moved.id) == {}
    assert await movers.homes_of(context) == {moved.target.cell: [moved.target.schema_name]}
    await neighbour.assert_untouched()
