"""The COMMIT of the flip, or the answer to it, is lost on the way to the catalog: it is read again, and there is one home."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from strata.migrator.phases import Phase
from strata.moving import keeper
from strata.platform.database.addresses import libpq
from strata.tenancy.model import Tier
from tests.builders.deaf_wire import DeafWire, Loss
from tests.builders.moving import Movers
from tests.builders.platform import SECOND_CELL, Tenantry, second_process
from tests.builders.site import Site
from tests.builders.traffic import assert_kept, traffic


@pytest.mark.slow
@pytest.mark.parametrize("loss", Loss, ids=lambda loss: loss.name.lower())
async def test_a_flip_whose_commit_is_not_heard_of(
    movers: Movers, mover_tenant: Tenantry, moving_site: Site, loss: Loss
) -> None:
    context = await mover_tenant(Tier.SHARED)
    wire = DeafWire(movers.runtime.catalog_url, "placement", loss)
    async with traffic(moving_site, context, writers=2) as ledger, wire.url() as url:
        move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL)
        async with second_process(movers.runtime, database_url=SecretStr(libpq(url))) as worker:
            worked = await keeper(worker).work_on(move.id)
        assert wire.lost == 1
        if worked is None or worked.phase is not Phase.COMPLETED:
            worked = await movers.work(move)
    assert worked.phase is Phase.COMPLETED
    events = await movers.desk.moves.events(move.id)
    assert [event.what for event in events].count("flipped") == 1
    await assert_kept(movers.runtime, context, ledger)
    assert ledger.unknown == []
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {SECOND_CELL: [f"t_{context.id.hex}"]}
