"""What every answer carries, and what answers on any host: on the application as it is served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser

import httpx
import jwt
import msgspec
import pytest
import structlog
import uvicorn
from litestar import get
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from strata.app import StrataApp, create_app
from strata.identity.permissions import public, routes_without_permission
from strata.platform.metrics import OTHERS, HttpMetrics
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.contexts import eventually
from tests.builders.http import client_of, token_for
from tests.builders.platform import Tenantry


@pytest.fixture(scope="session")
def whole_app(runtime: Runtime) -> StrataApp:
    return create_app(runtime)


@pytest.fixture(scope="session")
async def visited(tenant_on: Tenantry) -> TenantContext:
    return await tenant_on(Tier.SHARED)


@asynccontextmanager
async def served(app: StrataApp) -> AsyncIterator[int]:
    """The application on a port of this machine."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield int(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await task


def test_every_route_names_the_permission_it_needs(whole_app: StrataApp) -> None:
    assert routes_without_permission(whole_app) == []


def test_the_test_above_would_find_one_that_does_not(runtime: Runtime) -> None:
    @get("/left-open")
    async def left_open() -> None:
        pass

    assert routes_without_permission(create_app(runtime, [left_open])) == ["GET /left-open"]


async def test_operational_endpoints_answer_on_any_host(runtime: Runtime, whole_app: StrataApp) -> None:
    for host in ("127.0.0.1:8000", "[::1]", "nobody.localhost", "", "what ever"):
        async with client_of(whole_app, host) as client, asyncio.timeout(60):
            alive = await client.get("/healthz")
            ready = await client.get("/readyz")
            while ready.status_code == 503 or ready.json()["checks"]["redis"] == "down":
                # A busy machine misses an answer of Redis's now and then: milliseconds are given to it.
                await eventually(lambda: runtime.link.up)
                ready = await client.get("/readyz")
        assert (alive.status_code, alive.json()) == (200, {"status": "alive"})
        assert (ready.status_code, ready.json()) == (
            200,
            {"status": "ready", "checks": {"catalog": "up", "redis": "up"}},
        )


async def test_not_ready_without_the_catalog(runtime: Runtime) -> None:
    nowhere = create_async_engine(runtime.catalog_url.set(drivername="postgresql+asyncpg", port=1), poolclass=NullPool)
    app = create_app(msgspec.structs.replace(runtime, catalog_engine=nowhere), [])
    async with client_of(app, "lb") as client:
        ready = await client.get("/readyz")
        assert (await client.get("/healthz")).status_code == 200
    assert (ready.status_code, ready.json()["checks"]["catalog"]) == (503, "down")


async def test_metrics_count_by_tenant_plan_route_and_status(
    whole_app: StrataApp, runtime: Runtime, visited: TenantContext
) -> None:
    async with client_of(whole_app, f"{visited.slug}.localhost") as client:
        await client.get("/api/v1/openapi.json")
        await client.get("/no/such/thing")
        text = (await client.get("/metrics")).text
    labels = f'plan="{visited.plan}",route="/api/v1/openapi.json",status="200",tenant="{visited.slug}"'
    assert f'http_requests_total{{method="GET",{labels}}} 1.0' in text
    assert f'http_request_duration_ms_count{{method="GET",{labels}}} 1.0' in text
    assert f'route="unmatched",status="404",tenant="{visited.slug}"' in text
    assert "http_slow_requests_total" in text


@pytest.mark.parametrize(
    ("peer", "headers"),
    [("8.8.8.8", {}), ("127.0.0.1", {"X-Forwarded-For": "8.8.8.8"}), ("127.0.0.1", {"Forwarded": "for=x"}), ("x", {})],
)
async def test_metrics_are_for_collectors_inside(whole_app: StrataApp, peer: str, headers: dict[str, str]) -> None:
    async with client_of(whole_app, "localhost", peer=peer) as client:
        assert (await client.get("/metrics", headers=headers)).status_code == 404


def test_the_number_of_series_is_bounded() -> None:
    metrics = HttpMetrics(most_tenants=3)
    for number in range(10):
        for method in ("GET", f"X{number}"):
            metrics.observe(tenant=f"t{number}", plan="free", method=method, route="/", status=200, duration_ms=2001)
    exposed = metrics.exposition()[1].decode()
    counted = [line for line in exposed.splitlines() if line.startswith("http_slow_requests_total{")]
    assert len(counted) == (3 + 1) * 2
    assert sum(OTHERS in line for line in counted) == 2 + 3


async def test_every_answer_carries_the_security_headers(whole_app: StrataApp, visited: TenantContext) -> None:
    async with client_of(whole_app, f"{visited.slug}.localhost") as client:
        answers = [
            await client.get(path) for path in ("/healthz", "/api/v1/openapi.json", "/no/such", "/api/v1/products")
        ]
    async with client_of(whole_app, "[") as client:
        answers.append(await client.get("/"))
    assert [answer.status_code for answer in answers] == [200, 200, 404, 401, 400]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "strict-transport-security" not in answer.headers, "this one is served over http"


async def test_over_https_browsers_are_told_to_stay_there(runtime: Runtime) -> None:
    http = runtime.settings.http.model_copy(update={"public_scheme": "https"})
    settings = runtime.settings.model_copy(update={"http": http})
    app = create_app(msgspec.structs.replace(runtime, settings=settings), [])
    async with client_of(app, "localhost") as client:
        answer = await client.get("/healthz")
    assert answer.headers["strict-transport-security"] == "max-age=63072000"


async def test_a_page_may_bring_a_policy_of_its_own(runtime: Runtime, visited: TenantContext) -> None:
    @get("/own", opt=public(), response_headers={"Content-Security-Policy": "default-src 'none'"})
    async def own() -> str:
        return ""

    async with client_of(create_app(runtime, [own]), f"{visited.slug}.localhost") as client:
        answer = await client.get("/own")
    assert answer.headers.get_list("content-security-policy") == ["default-src 'none'"]


@pytest.mark.parametrize("offered", ["abc-1.2_3", "a" * 128])
async def test_a_sane_request_id_is_echoed(whole_app: StrataApp, offered: str) -> None:
    async with client_of(whole_app, "x") as client:
        assert (await client.get("/healthz", headers={"X-Request-ID": offered})).headers["x-request-id"] == offered


@pytest.mark.parametrize("offered", ["", "a" * 129, "a b", 'a"', "a\u00e9", "<script>"])
async def test_any_other_is_replaced(whole_app: StrataApp, offered: str) -> None:
    async with client_of(whole_app, "x") as client:
        given = (await client.get("/healthz", headers=[(b"X-Request-ID", offered.encode())])).headers["x-request-id"]
    assert given != offered
    assert len(given) == 32


async def test_logs_of_a_request_carry_its_id_and_tenant(runtime: Runtime, visited: TenantContext) -> None:
    @get("/says", opt=public())
    async def says() -> None:
        structlog.get_logger().warning("said")

    async with client_of(create_app(runtime, [says]), f"{visited.slug}.localhost") as client:
        with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
            await client.get("/says", headers={"X-Request-ID": "r-1"})
    (line,) = [line for line in lines if line["event"] == "said"]
    assert (line["request_id"], line["tenant_id"]) == ("r-1", str(visited.id))


async def test_the_keys_are_published_and_verify(
    whole_app: StrataApp, runtime: Runtime, visited: TenantContext
) -> None:
    for host in (f"{visited.slug}.localhost", "api.localhost", "localhost", "console.localhost"):
        async with client_of(whole_app, host) as client:
            answer = await client.get("/.well-known/jwks.json")
        keys = jwt.PyJWKSet.from_dict(answer.json())
        token = token_for(runtime.tokens, visited)
        kid = jwt.get_unverified_header(token)["kid"]
        assert jwt.decode(token, keys[kid], algorithms=["ES256"], audience="tenant")["tenant"] == str(visited.id)
        assert answer.headers["cache-control"] == "public, max-age=300"


class Outline(HTMLParser):
    """Which addresses a page fetches things from, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in {"script", "link", "img", "iframe"}:
            self.fetched.append(named.get("src") or named.get("href") or tag)

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_the_api_describes_itself_and_fetches_nothing_from_elsewhere(
    whole_app: StrataApp, visited: TenantContext
) -> None:
    async with client_of(whole_app, f"{visited.slug}.localhost") as client:
        document = (await client.get("/api/v1/openapi.json")).json()
        page = await client.get("/api/v1/docs")
    assert document["openapi"].startswith("3.1")
    assert "/.well-known/jwks.json" in document["paths"]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert page.headers["content-type"].startswith("text/html")
    outline = Outline()
    outline.feed(page.text)
    assert outline.fetched == []
    for path in document["paths"]:
        assert path in outline.text
    assert "Strata" not in page.text, "a tenant's users never see the platform's name"


async def test_over_a_real_socket_an_absent_or_doubled_host_is_400(whole_app: StrataApp) -> None:
    async with served(whole_app) as port:
        for head in (
            b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.localhost\r\nHost: b.localhost\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.localhost@b\r\nConnection: close\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            assert answer.split(b" ")[1] == b"400", head


async def test_over_a_real_socket_a_websocket_is_refused(whole_app: StrataApp) -> None:
    async with served(whole_app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer = await client.get(
            "/",
            headers={
                "Host": "localhost", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            },
        )  # fmt: skip
    assert answer.status_code != 101
