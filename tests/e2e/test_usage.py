"""Usage in a browser: charts that say what they show, on a phone too."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playwright.async_api import expect

from strata.platform.ids import new_id
from strata.tenancy.context import TenantContext
from strata.tenancy.usage.book import Batch, period_of, today
from tests.builders.site import Site
from tests.e2e.conftest import Visit

pytestmark = pytest.mark.browser


@pytest.fixture
async def busy_shop(site: Site, shop: TenantContext) -> TenantContext:
    for days, amount in ((0, 30), (3, 12), (10, 5)):
        counted = {(shop.id, "api-calls"): amount, (shop.id, "bytes-out"): amount * 10**6}
        await site.runtime.usage.count(Batch(new_id(), today() - timedelta(days=days), counted, frozenset()))
    return shop


async def test_a_tenant_looks_at_its_usage(site: Site, busy_shop: TenantContext, signed_in: Visit) -> None:
    page = await signed_in(busy_shop, "/stock")
    await page.get_by_role("link", name="Account").first.click()
    await page.get_by_role("navigation", name="Account").get_by_role("link", name="Usage").click()
    chart = page.get_by_role("img", name="API calls by day")
    await expect(chart).to_be_visible()
    box = await chart.locator("rect").nth(today().day - 1).bounding_box()
    assert box is not None
    assert box["height"] > 5
    figure = page.locator("figure", has=chart)
    await figure.get_by_text("As a table").click()
    await expect(figure.get_by_role("row").filter(has_text=today().isoformat())).to_be_visible()
    await page.get_by_label("Month (UTC)").fill("2020-01")
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_text("Nothing in this month.").first).to_be_visible()
    assert period_of(today()) not in page.url


async def test_on_a_phone_nothing_is_cut_off(busy_shop: TenantContext, signed_in: Visit) -> None:
    page = await signed_in(
        busy_shop, "/account/usage", viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True
    )
    await expect(page.get_by_role("img", name="API calls by day")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_staff_look_at_a_tenants_usage(site: Site, busy_shop: TenantContext, staff_page: Visit) -> None:
    page = await staff_page(f"/tenants/{busy_shop.slug}")
    await page.get_by_role("link", name="Usage", exact=True).last.click()
    await expect(page.get_by_role("img", name="Sent by day")).to_be_visible()
    await page.get_by_role("navigation").get_by_role("link", name="Usage").click()
    await page.get_by_label("By").select_option("bytes-out")
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("row").filter(has_text=busy_shop.slug)).to_be_visible()
