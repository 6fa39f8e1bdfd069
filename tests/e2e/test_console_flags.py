"""Staff roll a flag out: try it, save it, kill it, take it back; and see what one tenant gets."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from strata.tenancy.context import TenantContext
from tests.builders.site import Site
from tests.e2e.conftest import Visit

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}


async def test_a_flag_is_tried_rolled_out_killed_and_taken_back(
    site: Site, shop: TenantContext, staff_page: Callable[..., Awaitable[Page]]
) -> None:
    key = f"e{secrets.token_hex(5)}"
    page = await staff_page("/flags", viewport=PHONE)
    await page.get_by_label("Key").fill(key)
    await page.get_by_label("What it is for").fill("new labels")
    await page.get_by_role("button", name="Make it").click()
    await page.wait_for_url(f"**/flags/{key}")

    await page.get_by_label("Share of tenants").fill("100")
    await page.get_by_role("button", name="Dry run").click()
    tried = page.locator("#tried")
    await expect(tried).to_contain_text("tenants would get another variant")
    await expect(tried.get_by_role("link", name=shop.slug)).to_be_visible()
    assert not site.runtime.flags.is_on(key, shop)
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator("#tried")).to_have_count(0)
    assert site.runtime.flags.is_on(key, shop)

    await page.get_by_role("button", name="Kill").click()
    await expect(page.locator(".head .tag")).to_have_text("killed")
    assert not site.runtime.flags.is_on(key, shop)
    await page.get_by_role("button", name="Undo the last change").click()
    await expect(page.locator(".head .tag")).to_have_text("live")

    await page.goto(site.url("console", f"/tenants/{shop.slug}/flags"))
    row = page.locator("tr", has_text=key)
    await expect(row).to_contain_text("rollout: within 100 %")
    await page.get_by_label(f"Variant of {key}").select_option("off")
    await row.get_by_role("button", name="Set").click()
    await expect(page.locator("tr", has_text=key)).to_contain_text("override")
    assert not site.runtime.flags.is_on(key, await site.runtime.contexts.get_by_id(shop.id))
    await page.get_by_label(f"Variant of {key}").select_option("")
    await page.locator("tr", has_text=key).get_by_role("button", name="Set").click()
    await expect(page.locator("tr", has_text=key)).to_contain_text("rollout")


async def test_a_tenant_looks_at_its_plan(shop: TenantContext, signed_in: Visit) -> None:
    page = await signed_in(shop, "/account/plan", viewport=PHONE)
    await expect(page.get_by_role("heading", name="Plan business")).to_be_visible()
    await expect(page.locator("tr", has_text="skus")).to_contain_text("60")
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
