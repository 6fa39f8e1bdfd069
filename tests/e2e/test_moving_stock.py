"""The way from the printed address to a ledger line, as people and scanners go it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from strata.tenancy.context import TenantContext
from strata.tenancy.model import TenantStatus, Tier
from tests.builders.site import Site
from tests.e2e.conftest import Visit

pytestmark = pytest.mark.browser


async def on_hand(site: Site, context: TenantContext, sku: str) -> int:
    async with site.client(context) as client:
        return sum(item["on_hand"] for item in (await client.get("/api/v1/stock", params={"sku": sku})).json()["items"])


async def fill_line(page: Page, sku: str, code: str, quantity: str, line: int = 0) -> None:
    await page.get_by_label("SKU").nth(line).fill(sku)
    await page.get_by_label("Bin", exact=True).nth(line).fill(code)
    await page.get_by_label("Quantity").nth(line).fill(quantity)


@pytest.mark.parametrize("tier", Tier)
async def test_from_sign_in_to_the_ledger_line_by_keyboard_alone(
    site: Site, shops: dict[Tier, TenantContext], tier: Tier, visitor: Visit
) -> None:
    shop, reference = shops[tier], f"PO-{secrets.token_hex(4)}"
    page = await visitor()
    await page.goto(site.url(shop.slug))
    await expect(page).to_have_title("Sign in · Inventory")
    await expect(page.get_by_label("Access token")).to_be_focused()
    await page.keyboard.insert_text(site.token(shop))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("row", name="S-0 Product S-0 2 200")).to_be_visible()

    await page.goto(site.url(shop.slug, "/movements/new?kind=receive"))
    await expect(page.locator("#sku-1")).to_be_focused()
    for scanned in ("S-1", "B-0", "7", "S-2", "B-1", "9"):
        await page.keyboard.type(scanned)
        await page.keyboard.press("Enter")
        if scanned in {"7", "9"}:  # a full line brings the next one, with the cursor in it
            await expect(page.locator("[data-scan=sku]:focus")).to_have_value("")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Post movement")).to_be_focused()
    await page.get_by_label("Reference").focus()
    await page.keyboard.type(reference)
    await page.get_by_role("button", name="Post movement").focus()
    await page.keyboard.press("Enter")

    posted = page.get_by_role("status", name="Posted")
    await expect(posted.get_by_role("row", name="S-1 B-0 +7 107")).to_be_visible()
    await expect(posted.get_by_role("row", name="S-2 B-1 +9 109")).to_be_visible()
    await expect(page.locator("#sku-1")).to_be_focused()
    assert await on_hand(site, shop, "S-1") == 207

    await posted.get_by_role("link", name="S-1").click()
    first = page.locator("#ledger tr").first
    await expect(first).to_contain_text(reference)
    await expect(first).to_contain_text("+7")
    await expect(first).to_contain_text("107")
    await expect(page.get_by_text("207 on hand")).to_be_visible()


async def test_a_shortage_stands_beside_the_quantity_and_nothing_typed_is_lost(
    shop: TenantContext, signed_in: Visit
) -> None:
    page = await signed_in(shop, "/movements/new?kind=pick")
    await fill_line(page, "S-3", "B-0", "1000000")
    await page.get_by_label("Reference").fill("SO-1")
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_role("alert")).to_contain_text("«S-3» in bin «B-0»: 1000000 wanted, 100 on hand")
    quantity = page.get_by_label("Quantity")
    await expect(quantity).to_have_value("1000000")
    await expect(quantity).to_have_attribute("aria-invalid", "true")
    await expect(quantity).to_have_accessible_description("1,000,000 wanted, 100 on hand.")
    await expect(page.get_by_label("Reference")).to_have_value("SO-1")
    await expect(page.get_by_label("Pick")).to_be_checked()
    await quantity.fill("1")
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_role("row", name="S-3 B-0 −1 99")).to_be_visible()


async def test_unknown_codes_and_what_is_missing_are_marked_where_they_are(
    shop: TenantContext, signed_in: Visit
) -> None:
    page = await signed_in(shop, "/movements/new")
    await fill_line(page, "NO-SUCH", "B-0", "ten")
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_label("Quantity")).to_have_accessible_description("Give a whole number.")
    await page.get_by_label("Quantity").fill("10")
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_label("SKU")).to_have_accessible_description(
        "There is no product «NO-SUCH»; codes are exact, upper and lower case differ."
    )
    await expect(page.get_by_label("SKU")).to_have_value("NO-SUCH")


async def test_a_transfer_asks_for_two_bins_and_the_other_kinds_for_one(
    site: Site, shop: TenantContext, signed_in: Visit
) -> None:
    page = await signed_in(shop, "/movements/new")
    await expect(page.get_by_label("To bin")).to_be_hidden()
    await page.get_by_label("Transfer").check()
    await fill_line(page, "S-4", "B-0", "30")
    await page.get_by_label("To bin").fill("B-1")
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_role("row", name="S-4 B-0 −30 70")).to_be_visible()
    await expect(page.get_by_role("row", name="S-4 B-1 +30 130")).to_be_visible()
    assert await on_hand(site, shop, "S-4") == 200


async def test_a_double_click_posts_once(site: Site, shop: TenantContext, signed_in: Visit) -> None:
    page = await signed_in(shop, "/movements/new")
    await fill_line(page, "S-5", "B-0", "4")
    await page.get_by_role("button", name="Post movement").dblclick()
    await expect(page.get_by_role("row", name="S-5 B-0 +4 104")).to_be_visible()
    await page.wait_for_load_state("networkidle")
    assert await on_hand(site, shop, "S-5") == 204


async def test_without_javascript_everything_works_and_a_form_sent_twice_counts_once(
    site: Site, shop: TenantContext, signed_in: Visit
) -> None:
    page = await signed_in(shop, "/movements/new", java_script_enabled=False)
    await page.get_by_role("button", name="Add a line").click()
    await fill_line(page, "S-6", "B-0", "3")
    await fill_line(page, "S-7", "B-1", "2", line=1)
    key = await page.locator("[name=key]").get_attribute("value")
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_role("row", name="S-7 B-1 +2 102")).to_be_visible()
    fields = {"kind": "receive", "key": key, "sku": ["S-6", "S-7"], "bin": ["B-0", "B-1"], "quantity": ["3", "2"]}
    async with site.client(shop) as client:
        again = await client.post("/movements/new", data=fields)
    assert page.url.endswith(again.headers["Location"]), "the same movement is shown"
    assert await on_hand(site, shop, "S-6") == 203
    await page.goto(site.url(shop.slug, "/stock"))
    await page.get_by_label("Search").fill("S-59")
    await page.get_by_role("button", name="Search").click()
    await expect(page.locator("#rows tr")).to_have_count(1)


async def test_search_and_the_next_page_come_without_leaving_the_page(shop: TenantContext, signed_in: Visit) -> None:
    page = await signed_in(shop)
    rows = page.locator("#rows tr:not(.more)")
    await expect(rows).to_have_count(50)
    await page.get_by_role("link", name="Show more").click()
    await expect(rows).to_have_count(60)
    await expect(page.get_by_role("link", name="Show more")).to_have_count(0)
    await page.get_by_label("Search").press_sequentially("s-5")
    await expect(rows).to_have_count(11)  # S-5 and S-50 to S-59
    assert "q=s-5" in page.url
    await page.get_by_label("Search").fill("nothing like it")
    await expect(page.get_by_text("Nothing matches.")).to_be_visible()


async def test_a_session_that_ends_while_somebody_types_costs_them_nothing(
    shop: TenantContext, signed_in: Visit
) -> None:
    page = await signed_in(shop, "/movements/new")
    await fill_line(page, "S-8", "B-0", "11")
    cookies = await page.context.cookies()
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_role("alert")).to_contain_text("Sign in in a new tab")
    await expect(page.get_by_label("Quantity")).to_have_value("11")
    await page.context.add_cookies(cookies)  # type: ignore[arg-type]
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_role("row", name="S-8 B-0 +11 111")).to_be_visible()


async def test_an_answer_that_does_not_come_is_said_and_the_form_stays(
    shop: TenantContext, signed_in: Visit, complaints: list[str]
) -> None:
    page = await signed_in(shop, "/movements/new")
    await fill_line(page, "S-9", "B-0", "12")
    await page.context.set_offline(True)
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_role("alert")).to_contain_text("Nothing you typed is lost")
    await page.context.set_offline(False)
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_role("row", name="S-9 B-0 +12 112")).to_be_visible()
    complaints.clear()  # htmx reports the outage to the console


async def test_a_read_only_tenant_sees_why_and_cannot_post(
    site: Site, new_shop: Callable[[], Awaitable[TenantContext]], signed_in: Visit
) -> None:
    shop = await new_shop()
    page = await signed_in(shop, "/movements/new")
    await fill_line(page, "S-0", "B-0", "1")
    await site.runtime.directory.set_status(shop.slug, TenantStatus.READ_ONLY, "invoice 1042 is unpaid", "tests")
    await page.get_by_role("button", name="Post movement").click()
    await expect(page.get_by_role("alert")).to_contain_text("invoice 1042 is unpaid")
    await page.reload()
    await expect(page.get_by_text("Read-only: invoice 1042 is unpaid.")).to_be_visible()
    await expect(page.get_by_role("button", name="Post movement")).to_be_disabled()
    await expect(page.get_by_label("SKU")).to_be_disabled()
