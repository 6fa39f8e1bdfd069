"""What a tenant has made its own, in a browser: a custom field, and a movement that waits for somebody else."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from strata.identity.roles import Role
from strata.identity.tokens import tenant_token
from strata.tenancy.context import TenantContext
from tests.builders.settings import settle
from tests.builders.site import Site
from tests.e2e.conftest import Visit
from tests.e2e.test_brand_and_session import PHONE, NewShop, Visitor

pytestmark = pytest.mark.browser


async def enter_as(site: Site, page: Page, shop: TenantContext, name: str, role: Role, path: str) -> None:
    await page.goto(site.url(shop.slug, path))
    await page.get_by_label("Access token").fill(tenant_token(site.runtime.tokens, shop.id, role, subject=name))
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(f"**{path}")


async def test_a_field_is_defined_on_the_settings_page_and_asked_for_on_the_form(
    site: Site, new_shop: NewShop, signed_in: Visit
) -> None:
    shop = await new_shop()
    page = await signed_in(shop, "/account/settings")
    row = page.get_by_role("group", name="Of movements 1")
    await row.get_by_label("Key").fill("carrier")
    await row.get_by_label("Label").fill("Carrier")
    await row.get_by_label("Type").select_option("select")
    await row.get_by_label("Options").fill("DHL\nUPS")
    await row.get_by_label("Required").check()
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("group", name="Of movements 1").get_by_label("Key")).to_have_value("carrier")
    await expect(page.get_by_role("group", name="Of movements 2")).to_be_visible()

    await page.goto(site.url(shop.slug, "/movements/new?kind=receive&sku=S-0&bin=B-0"))
    await page.get_by_label("Quantity").fill("1")
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_text("«Carrier» is required.")).to_be_visible()
    await page.get_by_label("Carrier").select_option("UPS")
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_role("status", name="Posted")).to_contain_text("Received")
    await page.goto(site.url(shop.slug, "/account/settings"))
    await page.get_by_role("group", name="Of movements 1").get_by_label("Key").fill("")
    await page.get_by_role("button", name="Save").click()
    assert (await site.runtime.settings_book.of(shop.id)).settings["custom_fields"]["movement"] == []


async def test_a_large_movement_waits_until_somebody_else_approves(
    site: Site, new_shop: NewShop, visitor: Visitor
) -> None:
    shop = await new_shop()
    await settle(site.runtime, shop.slug, {"rules": {"approval_above": 10}})
    olga, mara = await visitor(viewport=PHONE), await visitor()
    await enter_as(site, olga, shop, "olga", Role.OPERATOR, "/movements/new?kind=receive&sku=S-0&bin=B-0")
    await olga.get_by_label("Quantity").fill("11")
    await olga.get_by_role("button", name="Post movement").click()
    await olga.wait_for_url("**/movements/requests?asked=*")
    await expect(olga.get_by_role("status")).to_contain_text("Nothing has moved yet")
    await expect(olga.get_by_role("button", name="Approve")).to_have_count(0)

    await enter_as(site, mara, shop, "mara", Role.WAREHOUSE_MANAGER, "/movements/requests")
    await mara.get_by_role("button", name="Approve").click()
    await expect(mara.locator("tr[data-request]")).to_contain_text("approved")
    await mara.get_by_role("link", name="The movement").click()
    await expect(mara.get_by_text("by olga")).to_be_visible()


async def test_products_are_found_by_a_custom_field_on_the_page(
    site: Site, new_shop: NewShop, signed_in: Visit
) -> None:
    shop = await new_shop()
    fields = [
        {"key": "colour", "label": "Colour", "type": "select", "options": ["red", "black & white"]},
        {"key": "shelf_life", "label": "Shelf life", "type": "number"},
    ]
    await settle(site.runtime, shop.slug, {"custom_fields": {"product": fields}})
    async with site.client(shop) as client:
        for number in range(60):
            colour, days = ("black & white", 30) if number % 10 else ("red", number)
            body = {"sku": f"C-{number:02}", "name": "Cup", "custom": {"colour": colour, "shelf_life": days}}
            assert (await client.post("/api/v1/products", json=body)).status_code == 201
    page = await signed_in(shop, "/stock", viewport=PHONE)
    await page.get_by_label("Colour").select_option("red")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("#rows tr")).to_have_count(6)
    await page.get_by_label("Shelf life").fill("20")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("#rows tr")).to_have_count(1)
    await expect(page.locator("#rows")).to_contain_text("C-20")
    await page.get_by_label("Shelf life").fill("21")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("#rows")).to_contain_text("found by its whole value")
    # The next fifty are those of the same colour, and the address can be kept.
    await page.get_by_label("Shelf life").fill("")
    await page.get_by_label("Colour").select_option("black & white")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("#rows tr:not(.more)")).to_have_count(50)
    await page.reload()
    await expect(page.get_by_label("Colour")).to_have_value("black & white")
    await page.get_by_role("link", name="Show more").click()
    await expect(page.locator("#rows tr:not(.more)")).to_have_count(54)
    assert await page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
