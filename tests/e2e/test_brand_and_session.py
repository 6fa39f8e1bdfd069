"""What belongs to one address: its look from the first byte, its sessions, its refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from strata.tenancy.context import TenantContext
from strata.tenancy.model import TenantStatus, Tier
from tests.builders.site import Site
from tests.e2e.conftest import Visit

pytestmark = pytest.mark.browser

NewShop = Callable[[], Awaitable[TenantContext]]
Visitor = Callable[..., Awaitable[Page]]
PHONE = {"width": 390, "height": 844}
BRAND: dict[str, object] = {
    "product_name": "Hofladen",
    "primary_color": "#7a1fa2",
    "secondary_color": "#f3e5f5",
    "font_family": "Georgia, serif",
    "theme": "auto",
    "custom_css": "h1 { letter-spacing: 1px }",
}


async def test_the_brand_is_in_the_first_response_and_on_the_page(
    site: Site, new_shop: NewShop, signed_in: Visit
) -> None:
    shop = await new_shop()
    await site.runtime.directory.set_document(shop.slug, "branding", BRAND, "tests")
    page = await signed_in(shop)
    response = await page.reload()
    assert response is not None
    html = await response.text()
    head = html[: html.index("<link")]
    assert "--color-primary:#7a1fa2" in head
    assert "--color-secondary:#f3e5f5" in head
    assert '--font-family:"Georgia",serif' in head
    assert "strata" not in html.lower(), "the platform's name is for nobody but its own people"
    await expect(page).to_have_title("Stock · Hofladen")
    await expect(page.locator(".top")).to_have_css("background-color", "rgb(122, 31, 162)")
    await expect(page.locator("body")).to_have_css("font-family", "Georgia, serif")
    await expect(page.get_by_role("heading", name="Stock")).to_have_css("letter-spacing", "1px")


async def test_dark_only_where_the_brand_leaves_it_to_the_device(
    site: Site, shop: TenantContext, new_shop: NewShop, visitor: Visitor
) -> None:
    branded = await new_shop()
    await site.runtime.directory.set_document(branded.slug, "branding", BRAND, "tests")
    page = await visitor(color_scheme="dark")
    await page.goto(site.url(branded.slug))
    await expect(page.locator("body")).to_have_css("background-color", "rgb(18, 22, 27)")
    await page.goto(site.url(shop.slug))
    await expect(page.locator("body")).to_have_css("background-color", "rgb(245, 246, 248)")


async def test_a_phone_needs_no_sideways_scrolling_and_no_small_fingers(shop: TenantContext, signed_in: Visit) -> None:
    page = await signed_in(shop, viewport=PHONE, has_touch=True, is_mobile=True)
    for path in ("/stock", "/movements/new?kind=transfer", "product"):
        if path == "product":
            await page.goto("/".join((*page.url.split("/")[:3], "stock")))
            await page.get_by_text("Product S-10").tap(force=True)  # the whole card leads on
            await page.wait_for_url("**/products/**")
        else:
            await page.goto("/".join(page.url.split("/")[:3]) + path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
        small = await page.evaluate(
            """[...document.querySelectorAll("a, button, input:not([type=hidden]), select")]
                .filter((e) => e.checkVisibility() && !e.closest("td, .unseen, .skip, .foot") && !e.matches(".unseen"))
                .map((e) => [e.outerHTML.slice(0, 80), e.getBoundingClientRect().height]).filter(([, h]) => h < 44)"""
        )
        assert small == [], path
        tiny = await page.evaluate(
            """[...document.querySelectorAll("input, select")].map((e) => parseFloat(getComputedStyle(e).fontSize))
                .filter((size) => size < 16)"""
        )
        assert tiny == [], f"{path}: phones zoom into fields with letters below 16 px"


async def test_a_neighbours_token_is_refused_in_words(
    site: Site, shops: dict[Tier, TenantContext], visitor: Visitor
) -> None:
    page = await visitor()
    for path, status in (("/sign-in", 200), ("/stock", 200)):
        response = await page.goto(site.url(shops[Tier.SHARED].slug, path))
        assert response is not None
        assert response.status == status
        await page.get_by_label("Access token").fill(site.token(shops[Tier.SCHEMA]))
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("belongs to another account")
        assert await page.context.cookies() == []


async def test_expired_and_mangled_tokens_are_told_apart(site: Site, shop: TenantContext, visitor: Visitor) -> None:
    page = await visitor()
    await page.goto(site.url(shop.slug, "/sign-in"))
    for token, said in (
        (site.token(shop, lifetime_s=-10), "has expired"),
        (site.token(shop)[:-3], "not an access token"),
        (site.staff_token(), "not for this address"),
    ):
        await page.get_by_label("Access token").fill(token)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text(said)


async def test_a_sign_in_link_keeps_its_token_out_of_addresses(
    site: Site, shop: TenantContext, visitor: Visitor
) -> None:
    page = await visitor()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    token = site.token(shop)
    await page.goto(site.url(shop.slug, f"/sign-in?next=/movements/new#token={token}"))
    await page.wait_for_url("**/movements/new")
    assert [url for url in asked if token in url.partition("#")[0]] == []
    # Somebody who is signed in is asked before they become somebody else.
    await page.goto(site.url(shop.slug, f"/sign-in#token={token}"))
    await expect(page.get_by_text("You are signed in as robin.")).to_be_visible()
    assert "#" not in page.url


async def test_after_signing_out_back_shows_nothing(shop: TenantContext, signed_in: Visit) -> None:
    page = await signed_in(shop)
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url("**/sign-in")
    await page.go_back()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert await page.get_by_text("Product S-0").count() == 0


async def test_staff_suspend_a_tenant_and_its_people_read_why(
    site: Site, new_shop: NewShop, signed_in: Visit, visitor: Visitor
) -> None:
    shop = await new_shop()
    people, staff = await signed_in(shop), await visitor()
    await staff.goto(site.url("console", f"/tenants/{shop.slug}"))
    await staff.get_by_label("Access token").fill(site.staff_token())
    await staff.get_by_role("button", name="Sign in").click()
    await staff.get_by_label("Suspend").check()
    await staff.get_by_role("button", name="Change status").click()
    await expect(staff.get_by_role("alert")).to_contain_text("Say why")
    await staff.get_by_label("Reason").fill("terms of use, § 4")
    await staff.get_by_role("button", name="Change status").click()
    await expect(staff.get_by_text("Suspended: terms of use, § 4")).to_be_visible()
    await expect(staff.get_by_role("row", name="tenant.suspended")).to_contain_text("staff:ada")

    await people.reload()
    await expect(people.get_by_role("heading")).to_have_text("Account suspended")
    await expect(people.get_by_role("alert")).to_contain_text("terms of use, § 4")

    await staff.get_by_label("Activate").check()
    await staff.get_by_role("button", name="Change status").click()
    await expect(staff.get_by_text("active", exact=True)).to_be_visible()
    assert (await site.runtime.directory.get(shop.slug)).status is TenantStatus.ACTIVE
    await people.reload()
    await expect(people.get_by_role("heading", name="Stock")).to_be_visible()


async def test_staff_find_tenants_and_see_cells(site: Site, shop: TenantContext, visitor: Visitor) -> None:
    page = await visitor(viewport=PHONE)
    await page.goto(site.url("console"))
    await page.get_by_label("Access token").fill(site.staff_token())
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_label("Search").press_sequentially(shop.slug)
    await expect(page.locator("#rows tr")).to_have_count(1)
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    await page.get_by_role("link", name="Cells").click()
    await expect(page.get_by_role("row", name="cell-1")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
