"""A tenant's account in a browser: what was done, and its settings."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from strata.tenancy.context import TenantContext
from tests.builders.settings import settle
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


async def test_settings_are_changed_refused_and_undone(site: Site, new_shop: NewShop, signed_in: Visit) -> None:
    shop = await new_shop()
    page = await signed_in(shop, "/account/settings")
    await page.get_by_label("Time zone").select_option("Europe/Berlin")
    await page.get_by_label("E-mail digest").select_option("weekly")
    await page.get_by_label("Slack webhook").fill("https://hooks.slack.example/T/B/secret")
    await expect(page.get_by_label("Account manager")).to_be_disabled()
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status")).to_contain_text("Saved")
    await expect(page.get_by_label("Time zone")).to_have_value("Europe/Berlin")
    await expect(page.get_by_label("Slack webhook")).to_have_value("")
    assert "hooks.slack.example" not in await page.content()
    kept = await site.runtime.settings_book.of(shop.id)
    assert kept.document["notifications"]["email_digest"] == "weekly"
    assert set(kept.document["regional"]) == {"time_zone"}, "what stayed at its default is not set"

    await page.get_by_label("Webhook address").fill("http://plain.example/")
    await page.get_by_label("Language and region").select_option("de-DE")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("https://")
    await expect(page.get_by_label("Webhook address")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_label("Language and region")).to_have_value("de-DE")

    await page.goto(site.url(shop.slug, "/account/settings"))
    await page.get_by_role("button", name="Undo change 1").click()
    await expect(page.get_by_label("Time zone")).to_have_value("UTC")
    await expect(page.locator("tr[data-number]")).to_have_count(2)


async def test_a_form_that_somebody_else_overtook_changes_nothing(
    site: Site, new_shop: NewShop, signed_in: Visit
) -> None:
    shop = await new_shop()
    page = await signed_in(shop, "/account/settings", viewport=PHONE)
    await settle(site.runtime, shop.slug, {"regional": {"currency": "EUR"}})
    await page.get_by_label("Currency").select_option("GBP")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("alert")).to_contain_text("Somebody has changed this")
    assert (await site.runtime.settings_book.of(shop.id)).document == {"regional": {"currency": "EUR"}}
    overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0


async def test_the_isolation_statement_is_read_and_printed(shop: TenantContext, signed_in: Visit) -> None:
    page = await signed_in(shop, "/account/isolation", viewport=PHONE)
    await expect(page.get_by_role("status")).to_contain_text("Every check passed")
    await expect(page.locator("tr[data-check=denial]")).to_contain_text("passed")
    await page.emulate_media(media="print")
    await expect(page.locator("header.top")).to_be_hidden()
    await expect(page.get_by_text("SHA-256")).to_be_visible()
