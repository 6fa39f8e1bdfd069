"""A whole Strata behind a real Chromium."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.inventory import stocked
from tests.builders.platform import Tenantry, new_platform, standing
from tests.builders.site import Site, serving
from tests.servers import PostgresServer, RedisServer

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Visit = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="session")
async def site(
    postgres_server: PostgresServer,
    second_postgres_server: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    platform = new_platform(postgres_server, second_postgres_server, redis_server, tmp_path_factory.mktemp("site"))
    async with standing(platform) as runtime, serving(runtime) as made:
        yield made


@pytest.fixture(scope="session")
async def shops(site: Site) -> dict[Tier, TenantContext]:
    """A tenant on each tier, with 100 each of S-0 to S-59 in the bins B-0 and B-1."""
    make = Tenantry(site.runtime)
    made = {tier: await make(tier) for tier in Tier}
    for context in made.values():
        await stocked(site.runtime, context, skus=60, bins=2, on_hand=100)
    return made


@pytest.fixture
async def shop(shops: dict[Tier, TenantContext]) -> TenantContext:
    """Any tenant will do."""
    return shops[Tier.SHARED]


@pytest.fixture
def new_shop(site: Site) -> Callable[[], Awaitable[TenantContext]]:
    """For tests that change the tenant itself: its brand, its status."""

    async def make() -> TenantContext:
        context = await Tenantry(site.runtime)(Tier.SHARED)
        await stocked(site.runtime, context, on_hand=5)
        return context

    return make


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on PATH: apt-get install chromium")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield launched
        await launched.close()


@pytest.fixture
async def complaints() -> AsyncIterator[list[str]]:
    """What the browser wrote to its console: errors, and refusals by the content policy. Must be empty in the end."""
    found: list[str] = []
    yield found
    assert found == []


@pytest.fixture
async def visitor(browser: Browser, complaints: list[str]) -> AsyncIterator[Callable[..., Awaitable[Page]]]:
    """`page = await visitor()`: a browser of one's own; options are Playwright's for a context (viewport, …)."""
    opened: list[BrowserContext] = []

    def heard(message: ConsoleMessage) -> None:
        # Chromium reports every refused form this way; what the page then says is what tests look at.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            complaints.append(message.text)

    async def open_page(**options: Any) -> Page:  # noqa: ANN401 - Playwright's own
        context = await browser.new_context(**options)
        opened.append(context)
        page = await context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_page
    for context in opened:
        await context.close()


@pytest.fixture
def signed_in(site: Site, visitor: Callable[..., Awaitable[Page]]) -> Visit:
    """`page = await signed_in(context, "/stock")`: there, by pasting the token into the form."""

    async def sign_in(context: TenantContext, path: str = "/stock", **options: Any) -> Page:  # noqa: ANN401
        page = await visitor(**options)
        await page.goto(site.url(context.slug, path))
        await page.get_by_label("Access token").fill(site.token(context))
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url(f"**{path}")
        return page

    return sign_in


@pytest.fixture
def staff_page(site: Site, visitor: Callable[..., Awaitable[Page]]) -> Callable[..., Awaitable[Page]]:
    """`page = await staff_page("/tenants")`: on the console, signed in as one of the staff."""

    async def sign_in(path: str, **options: Any) -> Page:  # noqa: ANN401
        page = await visitor(**options)
        await page.goto(site.url("console", path))
        await page.get_by_label("Access token").fill(site.staff_token())
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url(f"**{path}")
        return page

    return sign_in
