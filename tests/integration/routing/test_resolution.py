"""From Host and token to tenant, through the whole edge: a small application on the real catalog."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from litestar import asgi, get, post
from litestar.exceptions import PermissionDeniedException
from litestar.types import Receive, Scope, Send

from strata.app import StrataApp, create_app
from strata.identity.permissions import Permission, public, requires
from strata.identity.roles import Role
from strata.platform.errors import ConfigurationError
from strata.platform.tokens import Claims
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import TenantStatus, Tier
from strata.tenancy.session import Tenants
from tests.builders.contexts import add_domain
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.platform import Tenantry

PROBLEM = "application/problem+json"


class Line(msgspec.Struct):
    sku: str
    quantity: int


class Order(msgspec.Struct):
    lines: list[Line]
    kind: str = "receive"


@get("/who", opt=requires(Permission.PRODUCTS_READ))
async def who(context: TenantContext, claims: Claims, tenants: Tenants) -> dict[str, str]:
    assert isinstance(tenants, Tenants)
    return {"slug": context.slug, "subject": claims.sub}


@get("/open", opt=public())
async def open_page(claims: Claims | None) -> dict[str, bool]:
    return {"signed_in": claims is not None}


@post("/orders", opt=requires(Permission.MOVEMENTS_WRITE))
async def order(data: Order, limit: int = 5) -> dict[str, int]:
    return {"lines": len(data.lines), "limit": limit}


@post("/search", opt=requires(Permission.PRODUCTS_READ, changes_nothing=True))
async def search() -> dict[str, str]:
    return {}


@get("/staff/tenants", opt=requires(Permission.STAFF_TENANTS_READ))
async def staff_tenants(claims: Claims) -> dict[str, str]:
    return {"subject": claims.sub}


@get("/unguarded")
async def unguarded() -> dict[str, str]:
    return {}


@get("/breaks/{how:str}", opt=public())
async def breaks(how: str) -> None:
    match how:
        case "refused":
            raise ConnectionRefusedError
        case "configuration":
            message = "secret-host:5432 is not configured"
            raise ConfigurationError(message)
        case "forbidden":
            raise PermissionDeniedException
        case _:
            message = "a secret detail"
            raise RuntimeError(message)


ROUTES = [who, open_page, order, search, staff_tenants, unguarded, breaks]


@pytest.fixture(scope="session")
def small_app(runtime: Runtime) -> StrataApp:
    return create_app(runtime, ROUTES)


@dataclass
class Acme:
    context: TenantContext
    host: str
    domain: str
    token: str


@pytest.fixture(scope="session")
async def acme(runtime: Runtime, tenant_on: Tenantry) -> Acme:
    context = await tenant_on(Tier.SHARED)
    domain = f"{secrets.token_hex(4)}.example.com"
    await add_domain(runtime.catalog_engine, context.id, domain)
    await runtime.contexts.announce(context.id)
    return Acme(context, f"{context.slug}.localhost", domain, token_for(runtime.tokens, context))


@pytest.fixture(scope="session")
async def rival(runtime: Runtime, tenant_on: Tenantry) -> Acme:
    context = await tenant_on(Tier.SCHEMA)
    return Acme(context, f"{context.slug}.localhost", "", token_for(runtime.tokens, context))


async def test_every_way_of_naming_a_tenant_leads_to_it(small_app: StrataApp, acme: Acme) -> None:
    hosts = [
        acme.host, f"{acme.host}:8000", f"{acme.host}.", f"{acme.host.upper()}.:8000", acme.domain, "api.localhost",
        f"API.localhost:{8000}", acme.domain.upper(),
    ]  # fmt: skip
    for host in hosts:
        async with client_of(small_app, host, token=acme.token) as client:
            response = await client.get("/who")
        assert (response.status_code, response.json()["slug"]) == (200, acme.context.slug), host


async def test_without_a_token_the_host_names_the_tenant_and_public_routes_answer(
    small_app: StrataApp, acme: Acme
) -> None:
    for host in (acme.host, acme.domain, "api.localhost", "localhost", "console.localhost"):
        async with client_of(small_app, host) as client:
            assert (await client.get("/open")).json() == {"signed_in": False}, host
    async with client_of(small_app, acme.host) as client:
        refused = await client.get("/who")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "host",
    ["nobody-here.localhost", "unknown.example.org", "admin.localhost", "www.localhost", "a.b.localhost", "127.0.0.1:8000",
     "xn--bcher-kva.localhost", "testserver"],
)  # fmt: skip
async def test_an_unknown_or_reserved_name_is_404(small_app: StrataApp, acme: Acme, host: str) -> None:
    for token in (None, acme.token):
        async with client_of(small_app, host, token=token) as client:
            response = await client.get("/who")
        assert (response.status_code, response.json()["code"]) == (404, "unknown-tenant")


@pytest.mark.parametrize(
    "host", ["", "a b.localhost", "me@acme.localhost", "[::1]:8000", "acme.localhost:99999", "acme..localhost", "a" * 300,
             "acme.localhost:8a", "acme_x.localhost", "-acme.localhost", "acme.localhost/..", "acme.localhost,other.localhost"]
)  # fmt: skip
async def test_an_absurd_host_is_400(small_app: StrataApp, host: str) -> None:
    async with client_of(small_app, host) as client:
        response = await client.get("/open")
    assert (response.status_code, response.json()["code"]) == (400, "invalid-host")
    assert response.headers["content-type"] == PROBLEM


@pytest.mark.parametrize("hosts", [[], ["one.localhost", "two.localhost"], ["one.localhost", "one.localhost"]])
async def test_an_absent_or_doubled_host_is_400(small_app: StrataApp, hosts: list[str]) -> None:
    status, _headers, body = await raw_request(small_app, [(b"host", host.encode()) for host in hosts])
    assert (status, msgspec.json.decode(body)["code"]) == (400, "invalid-host")


async def test_a_token_and_a_host_that_disagree_are_403(small_app: StrataApp, acme: Acme, rival: Acme) -> None:
    for host, token in ((acme.host, rival.token), (rival.host, acme.token), (acme.domain, rival.token)):
        async with client_of(small_app, host, token=token) as client:
            for path in ("/who", "/open", "/nowhere"):
                response = await client.get(path)
                assert (response.status_code, response.json()["code"]) == (403, "token-host-mismatch")


async def test_a_domain_added_a_moment_ago_agrees_with_its_tenants_token(
    small_app: StrataApp, runtime: Runtime, rival: Acme
) -> None:
    host = f"{secrets.token_hex(4)}.example.net"
    async with client_of(small_app, rival.host, token=rival.token) as client:
        assert (await client.get("/who")).status_code == 200
    await add_domain(runtime.catalog_engine, rival.context.id, host)  # nobody was told
    async with client_of(small_app, host, token=rival.token) as client:
        assert (await client.get("/who")).status_code == 200


async def test_staff_and_tenant_tokens_keep_to_their_hosts(small_app: StrataApp, runtime: Runtime, acme: Acme) -> None:
    staff = token_for_staff(runtime.tokens)
    async with client_of(small_app, "console.localhost", token=staff) as client:
        assert (await client.get("/staff/tenants")).json() == {"subject": "staff@tests"}
        assert (await client.get("/who")).status_code == 404
    async with client_of(small_app, "console.localhost") as client:
        assert (await client.get("/staff/tenants")).status_code == 401
    async with client_of(small_app, "console.localhost", token=acme.token) as client:
        assert (await client.get("/open")).json()["code"] == "token-host-mismatch"
    for host in (acme.host, "api.localhost", "localhost", acme.domain):
        async with client_of(small_app, host, token=staff) as client:
            assert (await client.get("/open")).json()["code"] == "token-host-mismatch"
    async with client_of(small_app, acme.host, token=acme.token) as client:
        assert (await client.get("/staff/tenants")).status_code == 404


async def test_the_base_domain_has_no_tenant(small_app: StrataApp, acme: Acme) -> None:
    for token in (None, acme.token):
        async with client_of(small_app, "localhost", token=token) as client:
            assert (await client.get("/who")).status_code == 404
    async with client_of(small_app, "api.localhost") as client:
        assert (await client.get("/who")).status_code == 401


@pytest.mark.parametrize("authorization", ["Bearer x.y.z", "Bearer", "Basic YTpi", "Bearer ", "eyJ", "Bearer é"])
async def test_a_bad_token_is_401_and_says_so(small_app: StrataApp, acme: Acme, authorization: str) -> None:
    status, headers, body = await raw_request(
        small_app, [(b"host", acme.host.encode()), (b"authorization", authorization.encode())]
    )
    assert (status, msgspec.json.decode(body)["code"]) == (401, "invalid-token")
    assert headers[b"www-authenticate"].startswith(b'Bearer error="invalid_token"')


async def test_an_expired_token_is_401_and_its_cookie_only_a_stranger(
    small_app: StrataApp, runtime: Runtime, acme: Acme
) -> None:
    old = token_for(runtime.tokens, acme.context, lifetime_s=-1)
    async with client_of(small_app, acme.host, token=old) as client:
        refused = await client.get("/open")
    assert refused.status_code == 401
    assert "expired" in refused.json()["detail"]
    async with client_of(small_app, acme.host) as client:
        assert (await client.get("/open", headers={"Cookie": f"strata_session={old}"})).json() == {"signed_in": False}


async def test_a_cookie_signs_in_and_changes_come_only_from_our_own_pages(small_app: StrataApp, acme: Acme) -> None:
    cookie = {"Cookie": f"theme=dark; strata_session={acme.token}"}
    body = {"lines": [{"sku": "A", "quantity": 1}]}
    async with client_of(small_app, f"{acme.host}:8000") as client:
        assert (await client.get("/who", headers=cookie)).status_code == 200
        for theirs in (
            {},
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://sibling.localhost:8000"},
            {"Origin": f"http://{acme.host}"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "cross-site", "Origin": f"http://{acme.host}:8000"},
        ):
            refused = await client.post("/orders", json=body, headers={**cookie, **theirs})
            assert (refused.status_code, refused.json()["code"]) == (403, "cross-site-request"), theirs
        for ours in ({"Origin": f"http://{acme.host}:8000"}, {"Sec-Fetch-Site": "same-origin"}):
            assert (await client.post("/orders", json=body, headers={**cookie, **ours})).status_code == 201


async def test_two_session_cookies_count_as_none(small_app: StrataApp, acme: Acme, rival: Acme) -> None:
    async with client_of(small_app, acme.host) as client:
        both = f"strata_session={acme.token}; strata_session={rival.token}"
        assert (await client.get("/open", headers={"Cookie": both})).json() == {"signed_in": False}
        replayed = await client.get("/open", headers={"Cookie": f"strata_session={rival.token}"})
    assert replayed.json()["code"] == "token-host-mismatch"


async def test_roles_decide(small_app: StrataApp, runtime: Runtime, acme: Acme) -> None:
    viewer = token_for(runtime.tokens, acme.context, Role.VIEWER)
    async with client_of(small_app, acme.host, token=viewer) as client:
        assert (await client.get("/who")).status_code == 200
        refused = await client.post("/orders", json={"lines": []})
    assert refused.status_code == 403
    assert refused.json()["permission"] == "movements:write"


async def test_a_route_that_names_no_permission_is_closed_to_everybody(small_app: StrataApp, acme: Acme) -> None:
    for token in (None, acme.token):
        async with client_of(small_app, acme.host, token=token) as client:
            assert (await client.get("/unguarded")).json()["code"] == "route-closed"


async def test_x_forwarded_host_counts_from_trusted_proxies_alone(runtime: Runtime, acme: Acme, rival: Acme) -> None:
    http = runtime.settings.http.model_copy(update={"trusted_proxies": ("10.1.0.0/16", "192.0.2.7")})
    settings = runtime.settings.model_copy(update={"http": http})
    app = create_app(msgspec.structs.replace(runtime, settings=settings), ROUTES)
    forwarded = {"X-Forwarded-Host": acme.host}
    for peer, expected in (
        ("10.1.2.3", 200),
        ("192.0.2.7", 200),
        ("::ffff:10.1.2.3", 200),
        ("10.2.0.1", 403),
        ("unix", 403),
    ):
        async with client_of(app, rival.host, token=acme.token, peer=peer) as client:
            assert (await client.get("/who", headers=forwarded)).status_code == expected, peer
    async with client_of(app, rival.host, token=acme.token, peer="10.1.2.3") as client:
        doubled = await client.get("/who", headers=[("X-Forwarded-Host", acme.host), ("X-Forwarded-Host", rival.host)])
        listed = await client.get("/who", headers={"X-Forwarded-Host": f"{acme.host}, {rival.host}"})
    assert (doubled.status_code, listed.status_code) == (400, 400)


async def test_status_decides_what_is_served(small_app: StrataApp, runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    token, host = token_for(runtime.tokens, context), f"{context.slug}.localhost"
    body: dict[str, list[Line]] = {"lines": []}
    async with client_of(small_app, host, token=token) as client:
        assert (await client.post("/orders", json=body)).status_code == 201

        await runtime.directory.set_status(context.slug, TenantStatus.READ_ONLY, "trial over", "tests")
        assert (await client.get("/who")).status_code == 200
        assert (await client.post("/search")).status_code == 201
        refused = await client.post("/orders", json=body)
        assert (refused.status_code, refused.json()["code"], refused.json()["reason"]) == (
            403,
            "tenant-read-only",
            "trial over",
        )

        await runtime.directory.set_status(context.slug, TenantStatus.SUSPENDED, "unpaid since May", "tests")
        for path in ("/who", "/open"):
            refused = await client.get(path)
            assert (refused.status_code, refused.json()["code"]) == (403, "tenant-suspended")
            assert refused.json()["reason"] == "unpaid since May"

        await runtime.directory.set_status(context.slug, TenantStatus.ACTIVE, None, "tests")
        assert (await client.get("/who")).status_code == 200


async def test_errors_are_problem_documents_that_tell_no_secrets(small_app: StrataApp, acme: Acme) -> None:
    async with client_of(small_app, acme.host, token=acme.token) as client:
        for path, status, code in (
            ("/breaks/refused", 503, "unavailable"),
            ("/breaks/configuration", 500, "configuration"),
            ("/breaks/forbidden", 403, "forbidden"),
            ("/breaks/unexpected", 500, "internal-error"),
            ("/nowhere", 404, "not-found"),
        ):
            response = await client.get(path, headers={"X-Request-ID": "abc-1"})
            body = response.json()
            assert (response.status_code, body["status"], body["code"]) == (status, status, code)
            assert response.headers["content-type"] == PROBLEM
            assert body["request_id"] == "abc-1"
            assert "secret" not in response.text
        wrong_method = await client.delete("/who")
        assert (wrong_method.status_code, wrong_method.json()["code"]) == (405, "method-not-allowed")
        assert "GET" in wrong_method.headers["allow"]


@pytest.mark.parametrize(
    ("body", "query", "path", "where"),
    [
        ({"lines": [{"sku": "A", "quantity": "many"}]}, "", "/lines/0/quantity", None),
        ({"lines": [{"sku": "A"}]}, "", "/lines/0", None),
        ({}, "", "", None),
        ({"lines": []}, "?limit=few", "/limit", "query"),
    ],
)
async def test_values_that_do_not_fit_are_named_by_their_path(
    small_app: StrataApp, acme: Acme, body: dict[str, Any], query: str, path: str, where: str | None
) -> None:
    async with client_of(small_app, acme.host, token=acme.token) as client:
        response = await client.post(f"/orders{query}", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid-input")
    (error,) = response.json()["errors"]
    assert (error["path"], error.get("in")) == (path, where)


async def test_a_body_that_is_no_json_or_too_large_is_refused(small_app: StrataApp, acme: Acme) -> None:
    async with client_of(small_app, acme.host, token=acme.token) as client:
        torn = await client.post("/orders", content=b'{"lines": [', headers={"Content-Type": "application/json"})
        large = await client.post("/orders", content=b"x" * (11 * 1024 * 1024))
    assert (torn.status_code, torn.json()["code"]) == (400, "malformed-body")
    assert large.status_code == 413


async def raw_request(
    app: StrataApp, headers: list[tuple[bytes, bytes]], path: str = "/open"
) -> tuple[int, dict[bytes, bytes], bytes]:
    """A request with exactly these headers, which no well-behaved client would send."""
    sent: list[Any] = []

    async def receive() -> Any:  # noqa: ANN401
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:  # noqa: ANN401
        sent.append(message)

    scope: Any = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http", "http_version": "1.1",
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(message["body"] for message in sent[1:])


async def test_a_mounted_application_is_guarded_as_any_route(runtime: Runtime, acme: Acme) -> None:
    @asgi("/mounted", copy_scope=True)
    async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
        message = "nobody may come here"
        raise AssertionError(message)

    async with client_of(create_app(runtime, [mounted]), acme.host, token=acme.token) as client:
        assert (await client.get("/mounted")).json()["code"] == "route-closed"
