"""Staff move a tenant and look on: plan, start, live, cut over, roll back; and a wave of several."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from strata.app import create_app
from strata.events import relaying
from strata.migrator.waves.desk import Pace, WaveOrder, WaveWish
from strata.migrator.waves.window import Window
from strata.moving import keep_moving
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.http import client_of
from tests.builders.inventory import stocked
from tests.builders.lost_homes import with_a_home_lost
from tests.builders.moving import Movers
from tests.builders.platform import ACTOR, SECOND_CELL, Tenantry
from tests.builders.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

Visitor = Callable[..., Awaitable[Page]]
PATIENTLY_MS = 120_000
SKUS = 5
PHONE = {"width": 390, "height": 844}


@pytest.fixture
async def staff(site: Site, visitor: Visitor) -> Callable[..., Awaitable[Page]]:
    """`page = await staff("/moves")`: there, signed in on the console's host."""

    async def sign_in(path: str, **options: object) -> Page:
        page = await visitor(**options)
        page.set_default_timeout(PATIENTLY_MS)
        await page.goto(site.url("console", "/sign-in?next=" + path))
        await page.get_by_label("Access token").fill(site.staff_token())
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**" + path)
        return page

    return sign_in


@asynccontextmanager
async def at_work(site: Site) -> AsyncIterator[None]:
    # What a tenant has written before it goes is delivered before its old home is removed.
    async with relaying(site.runtime):
        working = asyncio.create_task(keep_moving(site.runtime))
        yield
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


@pytest.fixture
async def worker(site: Site) -> AsyncIterator[None]:
    async with at_work(site):
        yield


async def new_tenant(site: Site, *, skus: int = SKUS) -> TenantContext:
    context = await Tenantry(site.runtime)(Tier.SHARED)
    await stocked(site.runtime, context, skus=skus, bins=2, on_hand=3)
    return context


def phase(page: Page, said: str) -> Awaitable[None]:
    return expect(page.locator("[data-part=figures] .tag")).to_have_text(said, timeout=PATIENTLY_MS)


@pytest.mark.usefixtures("worker")
async def test_a_move_from_its_plan_to_its_roll_back(
    site: Site, staff: Callable[..., Awaitable[Page]], tmp_path: Path
) -> None:
    tenant = await new_tenant(site, skus=40)
    page = await staff("/moves")
    await page.get_by_role("link", name="Plan a move").click()
    await page.get_by_label("Tenant").fill(tenant.slug)
    await page.get_by_role("radio", name="Schema").check()
    await page.get_by_label("Cell").select_option(SECOND_CELL)
    await page.get_by_label("Stop before the cut-over").check()
    await page.get_by_role("button", name="Show the plan").click()
    await expect(page.locator("#plan")).to_contain_text("Nothing stands against it.")
    await expect(page.locator("#plan li").first).to_contain_text("make schema and role")
    await page.get_by_role("button", name="Start the move").click()
    await page.wait_for_url(re.compile(r"/moves/[0-9a-f-]{36}$"))

    # A page that was made before and stays as it was: its buttons are of another phase by the time they are pressed.
    stale = await page.context.new_page()
    await stale.goto(page.url)
    await stale.get_by_role("button", name="Cancel move").wait_for()
    form = await stale.locator("form", has_text="Cancel move").evaluate("(form) => form.outerHTML")
    await stale.evaluate("document.querySelector('[data-live]').removeAttribute('data-live')")

    await phase(page, "ready")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    await expect(page.get_by_role("progressbar", name="stock_balance")).to_be_visible()
    await page.get_by_role("button", name="Cut over").click()
    await phase(page, "retaining")
    await expect(page.get_by_role("definition").filter(has_text=" ms")).to_be_visible(timeout=PATIENTLY_MS)
    await expect(page.locator("[data-part=events]")).to_contain_text("flipped")
    await expect(page.locator("[data-part=events]")).to_contain_text("staff:ada")
    picture = os.environ.get("STRATA_TEST_PICTURES")
    await page.screenshot(path=Path(picture or tmp_path) / "console-move.png", full_page=True)

    await stale.evaluate("(html) => { document.querySelector('[data-part=acts]').innerHTML = html }", form)
    await stale.get_by_role("button", name="Cancel move").click()
    await expect(stale.get_by_role("alert")).to_contain_text("has gone on meanwhile, it is retaining now")
    await stale.close()

    await page.get_by_role("button", name="Roll back").click()
    await phase(page, "rolled back")
    # It has ended: nothing is left to press, and the browser asks no more.
    await expect(page.get_by_role("heading", name="What can be done")).to_have_count(0)
    now = await site.runtime.contexts.fresh(tenant.id)
    assert (now.placement.tier, now.placement.cell) == (Tier.SHARED, tenant.placement.cell)


@pytest.mark.usefixtures("worker")
async def test_the_way_back_is_ended_by_who_looks_on(site: Site, staff: Callable[..., Awaitable[Page]]) -> None:
    tenant = await new_tenant(site)
    move = await Movers(site.runtime).start(tenant, Tier.SCHEMA, retention_s=3600)
    page = await staff(f"/moves/{move.id}")
    await phase(page, "retaining")
    await expect(page.get_by_text("Can be rolled back until")).to_be_visible()
    await page.get_by_role("button", name="Complete").click()
    # The browser asks for the tick first, and sends nothing.
    await expect(page.get_by_label("There is no way back afterwards")).to_be_focused()
    await page.get_by_label("There is no way back afterwards").check()
    await page.get_by_role("button", name="Complete").click()
    await phase(page, "completed")
    await expect(page.get_by_role("heading", name="What can be done")).to_have_count(0)
    assert (await site.runtime.contexts.fresh(tenant.id)).placement.tier is Tier.SCHEMA


@pytest.mark.usefixtures("worker")
async def test_a_wave_is_paused_resumed_and_cancelled_while_one_looks_on(
    site: Site, staff: Callable[..., Awaitable[Page]]
) -> None:
    tenant = await new_tenant(site)
    now = datetime.now(UTC)
    closed = Window((now + timedelta(hours=2)).time(), (now + timedelta(hours=3)).time(), "UTC")
    order = WaveOrder(Tier.SCHEMA, tenants=(tenant.slug,), pace=Pace(window=closed))
    wave = await site.runtime.waves.start(order, ACTOR)
    page = await staff(f"/waves/{wave.id}")
    figures, members = page.locator("[data-part=figures]"), page.locator("[data-part=members]")
    await expect(figures).to_contain_text("its hours begin at", timeout=PATIENTLY_MS)
    await page.get_by_role("button", name="Pause").click()
    await expect(figures.locator(".tag")).to_have_text("paused")
    # Somebody else; nobody loads the page again.
    await site.runtime.waves.ask(wave.id, WaveWish.RESUME, ACTOR)
    await expect(figures.locator(".tag")).to_have_text("running", timeout=PATIENTLY_MS)
    await page.get_by_role("button", name="Cancel wave").click()
    await expect(figures.locator(".tag")).to_have_text("cancelled")
    await expect(members.locator(".tag")).to_have_text("dropped")
    await expect(page.get_by_role("heading", name="What can be done")).to_have_count(0)
    assert await site.runtime.desk.moves.newest(slug=tenant.slug) == []


async def test_a_loss_is_accepted_by_who_has_said_so(site: Site, staff: Callable[..., Awaitable[Page]]) -> None:
    tenant = await new_tenant(site)
    movers = Movers(site.runtime)
    failed = await with_a_home_lost(movers, tenant, Tier.SHARED, cell=SECOND_CELL)
    page = await staff(f"/moves/{failed.id}")
    await phase(page, "failed")
    form = page.locator("form", has=page.get_by_role("button", name="Accept the loss"))
    await expect(form).to_contain_text(f"The tenant lives on in {failed.source}.")
    await expect(form).to_contain_text(f"What was written in {failed.target} since")
    await expect(page.get_by_role("button", name="Cancel move")).to_have_count(0)

    await form.get_by_role("button").click()
    # The browser asks for the tick first, and sends nothing.
    await expect(form.get_by_role("checkbox")).to_be_focused()
    assert (await movers.desk.moves.get(failed.id)).wish is None
    await form.get_by_role("checkbox").check()
    await form.get_by_role("button").click()
    await expect(page.get_by_role("definition").filter(has_text="accept-loss")).to_be_visible()
    await expect(form).to_have_count(0)

    async with at_work(site):
        await phase(page, "rolled back")
    events = page.locator("[data-part=events]")
    await expect(events).to_contain_text("loss accepted")
    await expect(events.locator("tr").filter(has_text="asked to accept-loss")).to_contain_text("staff:ada")
    now = await site.runtime.contexts.fresh(tenant.id)
    assert now.placement.cell == tenant.placement.cell
    assert now.placement.epoch > (failed.target_epoch or 0)
    async with client_of(create_app(site.runtime), f"{tenant.slug}.localhost", token=site.token(now)) as client:
        assert len((await client.get("/api/v1/products")).json()["items"]) == SKUS


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
async def test_a_wave_on_a_phone(site: Site, staff: Callable[..., Awaitable[Page]], tmp_path: Path) -> None:
    tenants = [await new_tenant(site) for _ in range(2)]
    page = await staff("/waves/new", viewport=PHONE, has_touch=True, is_mobile=True)
    await page.get_by_label("Whose tenants").select_option("tenants")
    await page.get_by_label("Tenants by slug").fill(f"{tenants[0].slug}\n{tenants[1].slug}")
    await page.get_by_role("radio", name="Shared").check()
    await page.get_by_label("Cell they go to").select_option(SECOND_CELL)
    await page.get_by_label("Hours").fill("1-5")
    await page.get_by_role("button", name="Show who").click()
    await expect(page.get_by_role("alert")).to_contain_text("write 01:00-05:00")
    await page.get_by_label("Hours").fill("")
    await page.get_by_role("button", name="Show who").click()
    await expect(page.locator("#candidates li")).to_have_count(2)
    await no_sideways(page)
    await page.get_by_role("button", name="Start the wave").click()
    await page.wait_for_url(re.compile(r"/waves/[0-9a-f-]{36}$"))
    await expect(page.locator("[data-part=figures] .tag")).to_have_text("finished", timeout=PATIENTLY_MS)
    await expect(page.locator("[data-part=members] .tag.good")).to_have_count(2)
    await no_sideways(page)
    picture = os.environ.get("STRATA_TEST_PICTURES")
    await page.screenshot(path=Path(picture or tmp_path) / "console-wave.png")
    await page.get_by_role("link", name=tenants[0].slug).click()
    await phase(page, "completed")
    await no_sideways(page)
    for path in ("/moves", "/waves", f"/moves/new?tenant={tenants[0].slug}&to=schema"):
        await page.goto(site.url("console", path))
        await no_sideways(page)


async def test_without_javascript_it_is_pages_and_forms(site: Site, staff: Callable[..., Awaitable[Page]]) -> None:
    tenant = await new_tenant(site)
    page = await staff("/moves/new", java_script_enabled=False)
    await page.get_by_label("Tenant").fill(tenant.slug)
    await page.get_by_role("radio", name="Schema").check()
    await page.get_by_role("button", name="Show the plan").click()
    await page.get_by_role("button", name="Start the move").click()
    await expect(page.locator("[data-part=figures] .tag")).to_have_text("pending")
    await page.get_by_role("button", name="Cancel move").click()
    await expect(page.get_by_role("definition").filter(has_text="cancel")).to_be_visible()


async def no_sideways(page: Page) -> None:
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.url
