"""A tenant's account in a browser: what was done, and its settings."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from strata.tenancy.context import TenantContext
from tests.builders.site import Site
from tests.e2e.conftest import Visit
from tests.e2e.test_brand_and_session import PHONE, NewShop

pytestmark = pytest.mark.browser


async def test_an_administrator_reads_who_did_what(site: Site, new_shop: NewShop, signed_in: Visit) -> None:
    shop: TenantContext = await new_shop()
    page = await signed_in(shop, "/stock", viewport=PHONE)
    await page.get_by_role("link", name="Account").click()
    await page.get_by_role("link", name="Audit").click()
    await expect(page.get_by_role("row").filter(has_text="warehouse.create")).to_have_count(1)
    await page.get_by_label("What").fill("zone.create")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("#rows tr")).to_have_count(1)
    await expect(page.locator("#rows")).to_contain_text("zone.create")
    overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
