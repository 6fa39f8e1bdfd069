"""Staff look after a tenant's account: its settings with what only they may set, its isolation, and both audits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from strata.tenancy.context import TenantContext
from tests.builders.site import Site
from tests.e2e.conftest import Visit

pytestmark = pytest.mark.browser

PHONE = {"width": 390, "height": 844}


async def fits(page: Page) -> bool:
    return bool(await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


async def test_staff_set_what_tenants_cannot_and_the_audit_has_it(
    site: Site, new_shop: Callable[[], Awaitable[TenantContext]], staff_page: Visit
) -> None:
    shop = await new_shop()
    page = await staff_page(f"/tenants/{shop.slug}", viewport=PHONE)
    await page.get_by_role("link", name="Settings").click()
    await page.get_by_label("Account manager").fill("Grace")
    await page.get_by_label("Currency").select_option("EUR")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status")).to_contain_text("Saved")
    assert await fits(page)
    document = (await site.runtime.settings_book.of(shop.id)).document
    assert document == {"contract": {"account_manager": "Grace"}, "regional": {"currency": "EUR"}}

    await page.get_by_role("button", name="Undo change 1").click()
    await expect(page.get_by_label("Account manager")).to_have_value("")
    assert (await site.runtime.settings_book.of(shop.id)).document == {}

    await page.goto(site.url("console", "/audit"))
    await page.get_by_label("With").fill(shop.slug)
    await page.get_by_label("What").fill("settings.change")
    await page.get_by_role("button", name="Search").click()
    rows = page.locator("#rows tr")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("staff:ada")
    await page.get_by_label("What").fill("no.such")
    await page.get_by_role("button", name="Search").click()
    await expect(rows).to_have_text(["Nothing matches."])
    assert await fits(page)


async def test_staff_read_what_a_tenant_did_and_take_it_along(
    site: Site, new_shop: Callable[[], Awaitable[TenantContext]], staff_page: Visit
) -> None:
    shop = await new_shop()
    page = await staff_page(f"/tenants/{shop.slug}", viewport=PHONE)
    await page.get_by_role("link", name="What its own people did").click()
    await page.get_by_label("What").fill("warehouse.create")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("#rows tr")).to_have_count(1)
    for link, name in (("JSON lines", f"audit-{shop.slug}.jsonl"), ("CSV", f"audit-{shop.slug}.csv")):
        async with page.expect_download() as downloading:
            await page.get_by_role("link", name=link).click()
        download = await downloading.value
        assert download.suggested_filename == name
        content = (await download.path()).read_text(encoding="utf-8")
        assert "warehouse.create" in content
    assert await fits(page)


async def test_staff_read_and_print_the_isolation_statement(shop: TenantContext, staff_page: Visit) -> None:
    page = await staff_page(f"/tenants/{shop.slug}", viewport=PHONE)
    await page.get_by_role("link", name="Isolation statement").click()
    await expect(page.get_by_role("status")).to_contain_text("Every check passed")
    await expect(page.locator("tr[data-check=seal]")).to_contain_text("passed")
    assert await fits(page)
    await page.emulate_media(media="print")
    await expect(page.locator("header.top")).to_be_hidden()
    await expect(page.get_by_text("SHA-256")).to_be_visible()
