from __future__ import annotations

from http.cookies import SimpleCookie

import httpx
import msgspec
import pytest

from strata.app import StrataApp, create_app
from strata.identity.roles import Role
from strata.platform.settings import HttpSettings
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.platform import Tenantry

HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
async def people(tenant_on: Tenantry) -> TenantContext:
    return await tenant_on(Tier.SHARED)


def browser(app: StrataApp, host: str, **headers: str) -> httpx.AsyncClient:
    client = client_of(app, host)
    client.headers.update({**HTML, "Origin": f"http://{host}", **headers})
    return client


def session_cookie(answer: httpx.Response) -> SimpleCookie:
    return SimpleCookie(answer.headers["set-cookie"])


async def test_a_stranger_is_sent_to_sign_in_and_back(whole_app: StrataApp, people: TenantContext) -> None:
    async with browser(whole_app, f"{people.slug}.localhost") as client:
        answer = await client.get("/stock?q=a%26b&warehouse=HAM")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/sign-in?next=/stock%3Fq%3Da%2526b%26warehouse%3DHAM"
        form = await client.get(answer.headers["location"])
        assert 'name="next" value="/stock?q=a%26b&amp;warehouse=HAM"' in form.text


async def test_programs_get_a_problem_document_not_a_form(whole_app: StrataApp, people: TenantContext) -> None:
    async with client_of(whole_app, f"{people.slug}.localhost") as client:
        for path, accept in (("/stock", "application/json"), ("/api/v1/products", "text/html")):
            answer = await client.get(path, headers={"Accept": accept})
            assert answer.status_code == 401
            assert answer.headers["content-type"] == "application/problem+json"


async def test_the_session_is_a_cookie_of_this_host_that_scripts_cannot_read(
    runtime: Runtime, whole_app: StrataApp, people: TenantContext
) -> None:
    token = token_for(runtime.tokens, people)
    async with browser(whole_app, f"{people.slug}.localhost") as client:
        answer = await client.post("/sign-in", data={"token": f"  {token[:40]}\n{token[40:]} ", "next": "/stock"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/stock")
        cookie = session_cookie(answer)["strata_session"]
        assert cookie.value == token
        assert cookie["httponly"]
        assert cookie["samesite"].lower() == "lax"
        assert cookie["path"] == "/"
        assert not cookie["domain"]
        assert 0 < int(cookie["max-age"]) <= runtime.settings.tokens.lifetime_s
        assert not cookie["secure"]
        assert (await client.get("/stock", headers={"Cookie": f"strata_session={token}"})).status_code == 200


async def test_over_https_the_cookie_is_secure(runtime: Runtime, people: TenantContext) -> None:
    settings = runtime.settings.model_copy(update={"http": HttpSettings(public_scheme="https")})
    app = create_app(msgspec.structs.replace(runtime, settings=settings))
    async with browser(app, f"{people.slug}.localhost") as client:
        signed_in = await client.post("/sign-in", data={"token": token_for(runtime.tokens, people)})
        assert session_cookie(signed_in)["strata_session"]["secure"]
        signed_out = await client.post("/sign-out")
        assert session_cookie(signed_out)["strata_session"]["secure"]
        assert session_cookie(signed_out)["strata_session"]["max-age"] == "0"


async def test_a_token_in_the_address_is_not_taken(
    runtime: Runtime, whole_app: StrataApp, people: TenantContext
) -> None:
    token = token_for(runtime.tokens, people)
    async with browser(whole_app, f"{people.slug}.localhost") as client:
        answer = await client.get(f"/sign-in?token={token}")
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        assert token not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.localhost"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
    ids=str,
)
async def test_other_sites_can_neither_sign_somebody_in_nor_out(
    runtime: Runtime, whole_app: StrataApp, people: TenantContext, headers: dict[str, str]
) -> None:
    async with browser(whole_app, f"{people.slug}.localhost", **headers) as client:
        for path, form in (("/sign-in", {"token": token_for(runtime.tokens, people)}), ("/sign-out", {})):
            answer = await client.post(path, data=form)
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers


async def test_tokens_count_only_where_they_belong(
    runtime: Runtime, whole_app: StrataApp, people: TenantContext, tenant_on: Tenantry
) -> None:
    neighbour = await tenant_on(Tier.SCHEMA)
    cases = (
        (f"{people.slug}.localhost", token_for(runtime.tokens, neighbour), 403, "belongs to another account"),
        (f"{people.slug}.localhost", token_for_staff(runtime.tokens), 403, "not for this address"),
        ("console.localhost", token_for(runtime.tokens, people), 403, "not for this address"),
        (f"{people.slug}.localhost", token_for(runtime.tokens, people, lifetime_s=-1), 422, "has expired"),
        (f"{people.slug}.localhost", "çok güzel", 422, "not an access token"),
        (f"{people.slug}.localhost", " ", 422, "Paste your access token"),
    )
    for host, token, status, said in cases:
        async with browser(whole_app, host) as client:
            answer = await client.post("/sign-in", data={"token": token})
            assert (answer.status_code, said in answer.text) == (status, True)
            assert "set-cookie" not in answer.headers


async def test_a_cookie_of_an_account_that_was_here_before_is_taken_away(
    runtime: Runtime, whole_app: StrataApp, people: TenantContext, tenant_on: Tenantry
) -> None:
    """A slug that was given to somebody else: without this, every page of it would refuse, signing out included."""
    before = await tenant_on(Tier.SHARED)
    async with browser(whole_app, f"{people.slug}.localhost") as client:
        answer = await client.get("/stock", headers={"Cookie": f"strata_session={token_for(runtime.tokens, before)}"})
        assert answer.status_code == 403
        assert 'href="/sign-in"' in answer.text
        assert session_cookie(answer)["strata_session"]["max-age"] == "0"


async def test_pages_show_what_a_role_may_do_and_refuse_the_rest(
    runtime: Runtime, whole_app: StrataApp, people: TenantContext
) -> None:
    viewer = {"Cookie": f"strata_session={token_for(runtime.tokens, people, Role.VIEWER)}"}
    async with browser(whole_app, f"{people.slug}.localhost", **viewer) as client:
        assert "/movements/new" not in (await client.get("/stock")).text
        refused = await client.get("/movements/new")
        assert refused.status_code == 403
        assert "movements:write" in refused.text


async def test_the_front_door_knows_whose_it_is(whole_app: StrataApp, people: TenantContext) -> None:
    for host, leads_to in ((f"{people.slug}.localhost", "/stock"), ("console.localhost", "/tenants")):
        async with browser(whole_app, host) as client:
            assert (await client.get("/")).headers["location"] == leads_to
    async with browser(whole_app, "localhost:8000") as client:
        assert 'href="http://acme.localhost:8000/"' in (await client.get("/?organisation=Acme")).text
        assert "No organisation can have that name" in (await client.get("/?organisation=-x-")).text
        assert (await client.get("/sign-in")).status_code == 404
