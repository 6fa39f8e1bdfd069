"""Limits as clients meet them: headers, refusals, and what does not count."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from litestar import get

from strata.app import StrataApp, create_app
from strata.identity.permissions import Permission, public, requires
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.limits.errors import VIOLATED
from strata.tenancy.model import Tier
from tests.builders.contexts import eventually
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.platform import Tenantry

_doors: dict[str, asyncio.Event] = {}


@get("/api/v1/asked", opt=requires(Permission.STOCK_READ))
async def asked() -> dict[str, bool]:
    return {"asked": True}


@get("/api/v1/open", opt=public())
async def open_to_all() -> dict[str, bool]:
    return {"open": True}


@get("/page", opt=requires(Permission.STOCK_READ))
async def page(door: str = "") -> str:
    if door:
        await _doors[door].wait()
    return "a page"


@get("/staff/v1/asked", opt=requires(Permission.STAFF_CELLS_READ))
async def asked_by_staff() -> dict[str, bool]:
    return {"asked": True}


@pytest.fixture(scope="module")
def app(runtime: Runtime) -> StrataApp:
    return create_app(runtime, [asked, open_to_all, page, asked_by_staff])


@pytest.fixture
async def free(tenant_on: Tenantry) -> TenantContext:
    """120 requests a minute, 90 with one key, 40 at once of which 10 run."""
    return await tenant_on(Tier.SHARED, plan="free")


def as_key(app: StrataApp, runtime: Runtime, context: TenantContext) -> httpx.AsyncClient:
    return client_of(app, f"{context.slug}.localhost", token=token_for(runtime.tokens, context))


async def used_up(client: httpx.AsyncClient) -> httpx.Response:
    """The first refusal."""
    for _ in range(400):
        response = await client.get("/api/v1/asked")
        if response.status_code == 429:
            return response
    message = "nothing was refused"
    raise AssertionError(message)


async def test_every_answer_says_how_the_caller_stands_and_the_refusal_what_to_do(
    runtime: Runtime, app: StrataApp, free: TenantContext
) -> None:
    async with as_key(app, runtime, free) as client:
        first = await client.get("/api/v1/asked")
        assert first.headers["RateLimit-Policy"] == '"tenant";q=120;w=60, "key";q=90;w=60'
        assert re.fullmatch(r'"tenant";r=1\d\d;t=\d, "key";r=8\d;t=\d', first.headers["RateLimit"])
        refused = await used_up(client)
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "rate-exceeded"
        assert "key" in refused.json()[VIOLATED]
        assert int(refused.headers["Retry-After"]) >= 1
        assert '"key";r=0;' in refused.headers["RateLimit"]
        assert refused.headers["x-request-id"]
        # The person in front of a browser is not locked out by the program that asked too much.
        assert (await client.get("/page")).status_code == 200


async def test_strangers_do_not_use_up_a_tenants_allowance(
    runtime: Runtime, app: StrataApp, free: TenantContext
) -> None:
    async with client_of(app, f"{free.slug}.localhost") as stranger:
        answers = [await stranger.get("/api/v1/open") for _ in range(150)]
        assert {each.status_code for each in answers} == {200}
        assert "RateLimit" not in answers[-1].headers
    async with as_key(app, runtime, free) as client:
        assert (await client.get("/api/v1/asked")).status_code == 200


async def test_staff_and_health_checks_are_not_limited(runtime: Runtime, app: StrataApp) -> None:
    async with client_of(app, "console.localhost", token=token_for_staff(runtime.tokens)) as staff:
        for _ in range(150):
            assert (await staff.get("/staff/v1/asked")).status_code == 200
        assert "RateLimit" not in (await staff.get("/healthz")).headers


async def test_requests_at_once_queue_and_then_are_refused_at_once(
    runtime: Runtime, app: StrataApp, tenant_on: Tenantry, free: TenantContext
) -> None:
    door = _doors["at-once"] = asyncio.Event()
    neighbour = await tenant_on(Tier.SHARED, plan="free")
    async with as_key(app, runtime, free) as client, as_key(app, runtime, neighbour) as other:
        # Other tests' processes may be counted still: this one has its share of the limits at least.
        held = [asyncio.create_task(client.get("/page", params={"door": "at-once"})) for _ in range(40)]
        await eventually(lambda: runtime.concurrency.waiting > 0)
        await eventually(lambda: runtime.concurrency.let_through > 0)
        refused = await asyncio.gather(*(client.get("/page") for _ in range(3)))
        assert {each.status_code for each in refused} == {429}
        assert refused[0].json()["code"] == "too-many-at-once"
        assert refused[0].headers["Retry-After"] == "1"
        assert (await other.get("/page")).status_code == 200
        door.set()
        answered = [each.status_code for each in await asyncio.gather(*held)]
        assert set(answered) <= {200, 429}
        assert 200 in answered
        assert (await client.get("/page")).status_code == 200
        exposition = (await client.get("/metrics")).text
    assert re.search(r'concurrency_over_limit_total\{outcome="refused"\} [1-9]', exposition)
    assert "rate_limit_alone " in exposition
