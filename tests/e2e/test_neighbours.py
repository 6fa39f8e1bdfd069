"""Staff find out on the page who loads a cell, and hold it back, move it or leave it with one click."""

from __future__ import annotations

import pytest
from playwright.async_api import Locator, Page, expect

from strata.migrator.phases import Phase, Wish
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from strata.tenancy.neighbours.advice import NewAdvice
from strata.tenancy.neighbours.tables import AdviceKind
from strata.tenancy.usage.statements import Slow
from tests.builders.neighbours import noisy
from tests.builders.platform import Tenantry
from tests.builders.site import Site
from tests.e2e.conftest import Visit

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}


def advised(page: Page, tenant: TenantContext, kind: AdviceKind) -> Locator:
    return page.locator("#advice tbody tr", has_text=tenant.slug).filter(has=page.get_by_text(kind, exact=True))


def decided(page: Page, tenant: TenantContext) -> Locator:
    return page.locator("#decided tbody tr", has_text=tenant.slug)


async def loud_one(site: Site, plan: str) -> TenantContext:
    _, loud = await noisy(site.runtime, Tenantry(site.runtime), plan=plan)
    return loud


async def test_a_noisy_tenant_is_held_back_with_one_click(site: Site, staff_page: Visit) -> None:
    loud = await loud_one(site, "business")
    page = await staff_page("/tenants", viewport=PHONE)
    await page.goto(site.url("console", "/neighbours"))
    finding = page.locator("#findings tbody tr", has_text=loud.slug)
    await expect(finding).to_contain_text("slows its neighbours down")
    await expect(finding).to_contain_text("now")
    await expect(page.locator("#loads tbody tr", has_text=loud.slug)).to_contain_text("3.00")
    advice = advised(page, loud, AdviceKind.THROTTLE)
    await expect(advice).to_contain_text("Hold it back to 600 requests a minute")
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]

    await advice.get_by_role("button", name="Carry out").click()
    await expect(advised(page, loud, AdviceKind.THROTTLE)).to_have_count(0)
    await expect(decided(page, loud)).to_contain_text("at most 600 requests a minute")
    await expect(decided(page, loud)).to_contain_text("carried out")
    assert (await site.runtime.contexts.get_by_id(loud.id)).limits.api_rate_per_minute == 600

    await decided(page, loud).get_by_role("link", name=loud.slug).click()
    await page.wait_for_url(f"**/tenants/{loud.slug}/plan")
    await page.get_by_role("button", name="End limit api_rate_per_minute").click()
    await expect(page.get_by_text("held back by advice")).to_have_count(0)
    assert (await site.runtime.contexts.get_by_id(loud.id)).limits.api_rate_per_minute != 600


async def test_a_noisy_tenant_begins_its_move_with_one_click(site: Site, staff_page: Visit) -> None:
    loud = await loud_one(site, "enterprise")
    page = await staff_page("/neighbours")
    advice = advised(page, loud, AdviceKind.MOVE)
    await expect(advice).to_contain_text("a database of its own")
    await advice.get_by_role("button", name="Carry out").click()
    await expect(decided(page, loud)).to_contain_text("move to dedicated")
    (move,) = await site.runtime.desk.moves.newest(slug=loud.slug, unfinished=True, before=None, limit=5)
    assert (move.target.tier, move.phase) == (Tier.DEDICATED, Phase.PENDING)
    # The worker of another test shall not make it.
    await site.runtime.desk.ask(move.id, Wish.CANCEL, "tests")

    # Two look at the same advice: who decides second is told so.
    other = await staff_page("/neighbours")
    await advised(page, loud, AdviceKind.THROTTLE).get_by_role("button", name="Dismiss").click()
    await expect(decided(page, loud).filter(has_text="dismissed")).to_have_count(1)
    await advised(other, loud, AdviceKind.THROTTLE).get_by_role("button", name="Carry out").click()
    await expect(other.get_by_role("alert")).to_contain_text("decided already: dismissed, by staff:ada")


async def test_an_index_is_for_a_person_to_make(site: Site, shop: TenantContext, staff_page: Visit) -> None:
    statement = "SELECT id FROM product WHERE unit = $1"
    slow = Slow(statement, calls=1234, total_ns=9 * 10**12, rows=150, slowest_ns=900_000_000)
    await site.runtime.neighbours.note_statements([((shop.id, "e2e"), slow)])
    action = {"table": "product", "columns": ["tenant_id", "unit"], "fingerprint": "e2e"}
    wanted = NewAdvice(shop.id, AdviceKind.INDEX, "e2e", "It wants an index on product (tenant_id, unit).", action)
    await site.runtime.neighbours.propose([wanted])
    page = await staff_page("/neighbours")
    await expect(page.locator("#statements tbody tr", has_text=statement)).to_contain_text("1,234")
    advice = advised(page, shop, AdviceKind.INDEX)
    await expect(advice).to_contain_text("an index on product")
    await expect(advice.get_by_role("button")).to_have_text(["Dismiss"])
    await advice.get_by_role("button").click()
    await expect(decided(page, shop)).to_contain_text("index on product")
