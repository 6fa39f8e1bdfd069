from __future__ import annotations

from litestar import get

from strata.app import StrataApp, create_app
from strata.identity.permissions import public
from strata.platform.errors import UnavailableError
from strata.runtime import Runtime
from strata.tenancy.model import TenantStatus, Tier
from tests.builders.http import client_of, token_for
from tests.builders.platform import Tenantry

HTML = {"Accept": "text/html"}


async def test_problems_are_pages_in_the_tenants_look(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    brand: dict[str, object] = {
        "product_name": "Hofladen",
        "primary_color": "#7a1fa2",
        "support_url": "https://help.example/",
    }
    await runtime.directory.set_document(tenant.slug, "branding", brand, "tests")
    async with client_of(whole_app, f"{tenant.slug}.localhost", token=token_for(runtime.tokens, tenant)) as client:
        missing = await client.get("/nothing-here", headers=HTML)
        await runtime.directory.set_status(tenant.slug, TenantStatus.SUSPENDED, "a <b>bold</b> reason", "tests")
        suspended = await client.get("/stock", headers=HTML)
    assert (missing.status_code, suspended.status_code) == (404, 403)
    for answer in (missing, suspended):
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert "--color-primary:#7a1fa2" in answer.text
        assert "Hofladen" in answer.text
        assert "https://help.example/" in answer.text
        assert answer.headers["x-request-id"] in answer.text
        assert "strata" not in answer.text.lower()
    assert "a &lt;b&gt;bold&lt;/b&gt; reason" in suspended.text


async def test_an_address_nobody_has_is_told_in_the_neutral_look(whole_app: StrataApp) -> None:
    async with client_of(whole_app, "nobody-at-all.localhost") as client:
        answer = await client.get("/", headers=HTML)
    assert answer.status_code == 404
    assert "Nobody at this address" in answer.text


async def test_what_is_away_for_a_moment_is_a_page_that_offers_another_try(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    @get("/away", opt=public())
    async def away() -> None:
        message = "The database behind this account does not answer; try again shortly."
        raise UnavailableError(message)

    tenant = await tenant_on(Tier.SHARED)
    async with client_of(create_app(runtime, [away]), f"{tenant.slug}.localhost") as client:
        answer = await client.get("/away", headers=HTML)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert '<a class="button first" href="/away">Try again</a>' in answer.text


async def test_htmx_gets_the_message_alone_to_put_above_what_was_typed(
    whole_app: StrataApp, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    headers = {**HTML, "HX-Request": "true", "Origin": f"http://{tenant.slug}.localhost"}
    async with client_of(whole_app, f"{tenant.slug}.localhost") as client:
        answer = await client.post("/movements/new", data={"kind": "receive"}, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["hx-retarget"] == "#messages"
    assert answer.text.lstrip().startswith('<div class="notice bad" role="alert">')


async def test_static_files_never_change_under_their_name_and_need_no_tenant(
    whole_app: StrataApp, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    async with client_of(whole_app, f"{tenant.slug}.localhost") as client:
        page = (await client.get("/sign-in", headers=HTML)).text
    paths = [part.split('"')[0] for part in page.split('="') if part.startswith("/static/")]
    assert len(paths) == 4
    async with client_of(whole_app, "nobody-at-all.localhost") as client:
        for path in paths:
            answer = await client.get(path, headers={"Accept-Encoding": "gzip"})
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["content-encoding"] == "gzip"
            expected = "text/css" if ".css" in path else "text/javascript"
            assert answer.headers["content-type"] == f"{expected}; charset=utf-8"
            assert (await client.get(path, headers={"Accept-Encoding": "identity"})).content == answer.content
            assert (await client.head(path)).content == b""
        assert (await client.get("/static/app.css")).status_code == 404


async def test_the_policy_lets_nothing_run_that_is_not_ours(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    brand: dict[str, object] = {"logo_url": "https://cdn.example/logo.png", "custom_css": "</style><script>1</script>"}
    await runtime.directory.set_document(tenant.slug, "branding", brand, "tests")
    async with client_of(whole_app, f"{tenant.slug}.localhost") as client:
        first, second = [await client.get("/sign-in", headers=HTML) for _ in range(2)]
        policy = dict(part.split(" ", 1) for part in first.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["img-src"] == "'self' data: https://cdn.example"
        nonce = policy["style-src"].partition("'nonce-")[2].rstrip("'")
        assert first.text.count("<style") == first.text.count(f'<style nonce="{nonce}">') == 1
        assert nonce not in second.text
        assert "<script>1" not in first.text
        style = await client.get("/branding.css")
        assert style.headers["content-type"] == "text/css; charset=utf-8"
        assert style.text == brand["custom_css"]
