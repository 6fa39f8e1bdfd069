"""The real file on every tier, against a recount that shares no code with the importer."""

from __future__ import annotations

import pytest

from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.mapping import packaged
from strata.inventory.imports.models import ImportState
from strata.inventory.imports.runner import ImportRunner
from strata.inventory.imports.schemas import ImportOptions, ImportSummary
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.imports import ONLINE_RETAIL, books, needs_online_retail, recount
from tests.builders.platform import Tenantry

pytestmark = needs_online_retail


async def load(runtime: Runtime, context: TenantContext, *, opening_stock: bool) -> ImportSummary:
    return await ImportRunner(runtime.tenants, context).run(
        SourceFile(ONLINE_RETAIL), packaged("online-retail"), ImportOptions(opening_stock=opening_stock), actor="tests"
    )


@pytest.mark.parametrize(
    "tier", [Tier.SHARED, *(pytest.param(each, marks=pytest.mark.slow) for each in (Tier.SCHEMA, Tier.DEDICATED))]
)
async def test_with_opening_stock_every_sale_is_posted(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    context = await tenant_on(tier)
    summary = await load(runtime, context, opening_stock=True)
    counted, run, found = recount(), summary.run, await books(runtime, context)

    assert (run.state, run.rows_read, summary.rows) == (ImportState.DONE, counted.rows, 42_481)
    assert (run.lines_accepted, run.lines_refused) == (counted.accepted, 195)
    assert summary.refused_by_code == found.refusals == {"not-goods": 195} == dict(counted.refused)
    assert dict(counted.reasons) == {"sale": 41_455, "customer-return": 698, "write-off": 70, "stock-found": 63}

    assert {sku: change for sku, change in found.by_sku.items() if change} == {
        sku: change for sku, change in counted.change.items() if change
    }
    assert found.by_sku.keys() == counted.change.keys()
    assert run.quantity_sum == sum(found.by_sku.values()) == sum(counted.change.values()) == -346_093

    # Exactly what was needed: at its lowest, each product that needed any came down to nothing.
    assert found.opening == {sku: -low for sku, low in counted.lowest.items() if low < 0}
    assert run.opening_sum == sum(found.opening.values()) == 355_982
    assert found.on_hand == {sku: found.by_sku[sku] + found.opening.get(sku, 0) for sku in found.by_sku}

    assert found.products == found.quota == run.products_created == 2752
    assert found.movements == run.movements_posted == counted.movements + 3
    assert found.gapless

    folded = {each.sku: each.spellings for each in summary.folded}
    assert len(folded) == 59
    assert folded["85123A"] == ("85123A", "85123a")

    again = await load(runtime, context, opening_stock=True)
    assert (again.nothing_to_do, again.run) == (True, run)
    assert await books(runtime, context) == found


@pytest.mark.slow
async def test_without_it_an_invoice_that_is_short_is_refused_whole(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    summary = await load(runtime, context, opening_stock=False)
    counted, run, found = recount(from_nothing=True), summary.run, await books(runtime, context)
    assert summary.refused_by_code == found.refusals == dict(counted.refused)
    assert run.lines_accepted == counted.accepted
    assert run.lines_accepted + run.lines_refused == run.rows_read == 42_481
    assert found.opening == {}
    assert {sku: change for sku, change in found.by_sku.items() if change} == {
        sku: change for sku, change in counted.change.items() if change
    }
    assert run.quantity_sum == sum(counted.change.values())
    assert found.movements == run.movements_posted == counted.movements
    assert found.gapless
