"""A file, from the form to the refused lines, in a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from playwright.async_api import FilePayload, expect

from strata.platform.settings import ImportSettings
from strata.tenancy.context import TenantContext
from tests.builders.platform import second_process
from tests.builders.queued_imports import importing
from tests.builders.site import Site
from tests.e2e.conftest import Visit

pytestmark = pytest.mark.browser

Shop = Callable[[], Awaitable[TenantContext]]


def stock_list(rows: int) -> FilePayload:
    content = "sku,name,quantity\n" + "".join(f"i{n},Item {n},{n % 7}\n" for n in range(rows))
    return {"name": "stock of today.csv", "mimeType": "text/csv", "buffer": content.encode()}


@pytest.fixture
async def slow_workers(site: Site) -> AsyncIterator[None]:
    """So slow that a person can cancel."""
    imports = ImportSettings(batch_rows=10, most_share=0.1, least_share=0.1)
    async with second_process(site.runtime, imports=imports) as other, importing(other):
        yield


async def test_a_file_is_imported_while_one_looks_on(site: Site, new_shop: Shop, signed_in: Visit) -> None:
    shop = await new_shop()
    page = await signed_in(shop, "/stock")
    await page.get_by_role("link", name="Imports").first.click()
    await page.get_by_label("File").set_input_files(stock_list(700))
    await page.get_by_label("How it is read").select_option("stock-list")
    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.get_by_role("heading", name="stock of today.csv")).to_be_visible()
    await expect(page.get_by_role("button", name="Cancel import")).to_be_visible()
    async with importing(site.runtime):
        # Nobody touches the page: it asks by itself, and stops asking when there is no more to come.
        await expect(page.get_by_role("heading", name="Imported")).to_be_visible(timeout=40_000)
    await expect(page.get_by_role("definition").filter(has_text="700 of 700")).to_be_visible()
    await expect(page.get_by_role("button", name="Cancel import")).to_have_count(0)
    await expect(page.locator("#import[hx-trigger]")).to_have_count(0)
    rows = page.locator("#refusals tr:not(.more)")
    await expect(rows).to_have_count(50)
    await expect(rows.first).to_contain_text("Line 2 has the quantity 0 and would move nothing.")
    await page.get_by_role("link", name="Show more").click()
    await expect(rows).to_have_count(100)


@pytest.mark.usefixtures("slow_workers")
async def test_it_can_be_cancelled_on_a_phone(new_shop: Shop, signed_in: Visit) -> None:
    shop = await new_shop()
    page = await signed_in(shop, "/imports", viewport={"width": 375, "height": 667}, has_touch=True, is_mobile=True)
    await page.get_by_label("File").set_input_files(stock_list(3000))
    await page.get_by_label("How it is read").select_option("stock-list")
    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.get_by_role("heading", name="Importing")).to_be_visible(timeout=30_000)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await page.get_by_role("button", name="Cancel import").click()
    await expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()
    await page.get_by_role("link", name="‹ Imports").click()
    await expect(page.get_by_role("row", name="stock of today.csv")).to_contain_text("cancelled")


async def test_what_is_no_such_file_is_said_above_the_form(new_shop: Shop, signed_in: Visit) -> None:
    shop = await new_shop()
    page = await signed_in(shop, "/imports")
    file: FilePayload = {"name": "x.csv", "mimeType": "text/csv", "buffer": b"code;amount\n"}
    await page.get_by_label("File").set_input_files(file)
    await page.get_by_role("button", name="Import", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("lacks the columns")
    await expect(page.get_by_text("Nothing has been imported yet.")).to_be_visible()
