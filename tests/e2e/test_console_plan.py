"""Staff look at a tenant's plan, see what another would change, and change it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from strata.tenancy.context import TenantContext
from tests.builders.site import Site

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}


async def test_a_plan_is_changed_after_its_consequences_were_shown(
    site: Site, new_shop: Callable[[], Awaitable[TenantContext]], staff_page: Callable[..., Awaitable[Page]]
) -> None:
    shop = await new_shop()
    page = await staff_page(f"/tenants/{shop.slug}", viewport=PHONE)
    await page.get_by_role("link", name="business v1").click()
    await page.get_by_label("Grant", exact=True).select_option("limit skus")
    await page.get_by_label("Number").fill("1")
    await page.get_by_label("Reason").last.fill("contract 7")
    await page.get_by_role("button", name="Grant").click()
    await expect(page.get_by_text("contract 7")).to_be_visible()

    await page.get_by_label("Plan", exact=True).select_option("free")
    await page.get_by_role("button", name="Show what would change").click()
    shown = page.locator("section", has=page.get_by_role("heading", name="business v1 → free v1"))
    await expect(shown).to_contain_text("transfers")
    await expect(shown).to_contain_text("2 in use, 1 allowed")
    await expect(shown).to_contain_text("limit skus = 1")
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await shown.get_by_role("button", name="Change the plan").click()
    await expect(page.locator(".head .tag")).to_have_text("free v1")
    await expect(page.get_by_text("contract 7")).to_be_visible()
    assert (await site.runtime.contexts.get_by_id(shop.id)).plan == "free"

    await page.get_by_role("button", name="End limit skus").click()
    await expect(page.get_by_text("contract 7")).not_to_be_visible()
    assert (await site.runtime.contexts.get_by_id(shop.id)).limits.skus == 5000
