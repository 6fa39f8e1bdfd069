"""Redis, the catalog or the tenant's cell is away: what goes on, what is refused by name, and that all of it comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.breakable import Breakable, Server, breakable, kill, revive
from tests.builders.events import until
from tests.builders.inventory import stocked
from tests.builders.platform import SECOND_CELL

BACK_WITHIN_S = 30.0
STAFF = "staff"
# What each asks, and who has to be there for it. The tenant's cell is on the second server, the catalog on the first.
NEEDS = {
    "/api/v1/settings": {"catalog"},
    "/api/v1/settings/history": {"catalog"},
    "/api/v1/settings/schema": set(),
    "/account/settings": {"catalog"},
    "/api/v1/audit": {"cell"},
    "/api/v1/audit/export": {"cell"},
    "/api/v1/audit/export?format=csv": {"cell"},
    "/api/v1/audit/verification": {"cell", "catalog"},
    "/account/audit": {"cell"},
    "/api/v1/isolation": {"cell", "catalog"},
    "/account/isolation": {"cell", "catalog"},
    "/api/v1/plan": {"cell", "catalog"},
    "/account/plan": {"cell", "catalog"},
    "/api/v1/usage": {"catalog"},
    "/api/v1/usage/export": {"catalog"},
    "/account/usage": {"catalog"},
    "staff/staff/v1/tenants/{slug}/entitlements": {"catalog"},
    "staff/tenants/{slug}/plan": {"catalog"},
    "staff/staff/v1/tenants/{slug}/usage/export": {"catalog"},
    "staff/staff/v1/usage/growth": {"catalog"},
    "staff/tenants/{slug}/usage": {"catalog"},
    "staff/staff/v1/flags": {"catalog"},
    "staff/flags": {"catalog"},
    "staff/staff/v1/flag-segments": {"catalog"},
    "staff/staff/v1/stale-flags": {"catalog"},
    "staff/tenants/{slug}/flags": {"catalog"},
    "staff/staff/v1/neighbours": {"catalog"},
    "staff/neighbours": {"catalog"},
    "staff/staff/v1/audit": {"catalog"},
    "staff/staff/v1/audit/export": {"catalog"},
    "staff/staff/v1/audit/export?format=csv": {"catalog"},
    "staff/staff/v1/audit/verification": {"catalog"},
    "staff/staff/v1/tenants/{slug}/activity": {"cell"},
    "staff/staff/v1/tenants/{slug}/activity/export?format=csv": {"cell"},
    "staff/staff/v1/tenants/{slug}/activity/verification": {"cell", "catalog"},
    "staff/staff/v1/tenants/{slug}/isolation": {"cell", "catalog"},
}


@pytest.fixture(scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Breakable]:
    async with breakable(tmp_path_factory.mktemp("away")) as made:
        yield made


async def asked(ground: Breakable, context: TenantContext, what: str) -> httpx.Response:
    path = what.format(slug=context.slug)
    async with ground.site.client(context) as client:
        client.timeout = httpx.Timeout(30)
        if not path.startswith(STAFF):
            return await client.get(path)
        headers = {"Host": "console.localhost", "Authorization": f"Bearer {ground.site.staff_token()}"}
        return await client.get(path.removeprefix(STAFF), headers=headers)


async def patched(ground: Breakable, context: TenantContext, etag: str, locale: str) -> httpx.Response:
    headers = {"If-Match": etag, "Content-Type": "application/merge-patch+json"}
    async with ground.site.client(context) as client:
        client.timeout = httpx.Timeout(30)
        return await client.patch("/api/v1/settings", json={"regional": {"locale": locale}}, headers=headers)


def assert_refused(answer: httpx.Response, what: str) -> None:
    assert answer.status_code == 503, (what, answer.text)
    assert int(answer.headers["Retry-After"]) >= 1, what
    assert "127.0.0.1" not in answer.text, "where servers stand is no tenant's business"
    if not what.startswith("/account"):
        assert answer.headers["Content-Type"].startswith("application/problem+json"), what
        assert answer.json()["status"] == 503
        assert "passed" not in answer.json()


@pytest.mark.parametrize("gone", ["redis", "catalog", "cell"])
async def test_what_needs_it_is_refused_by_name_and_the_rest_goes_on(ground: Breakable, gone: str) -> None:
    context = await ground.tenants(Tier.SCHEMA, cell=SECOND_CELL)
    await stocked(ground.runtime, context)
    etag = (await asked(ground, context, "/api/v1/settings")).headers["ETag"]
    servers: dict[str, Server] = {"redis": ground.redis, "catalog": ground.first, "cell": ground.second}
    server = servers[gone]
    await kill(server)
    try:
        answers = {what: await asked(ground, context, what) for what in NEEDS}
        expected = {what: 503 if gone in needed else 200 for what, needed in NEEDS.items()}
        assert {what: answer.status_code for what, answer in answers.items()} == expected
        for what, answer in answers.items():
            if gone in NEEDS[what]:
                assert_refused(answer, what)
        change = await patched(ground, context, etag, "de")
        if gone == "redis":
            assert change.status_code == 200, change.text
        else:
            assert_refused(change, "patch")
    finally:
        await revive(server)

    async def is_back() -> bool:
        # A process that finds Redis again forgets its contexts: the next outage shall not begin before that.
        return ground.runtime.link.up and {(await asked(ground, context, what)).status_code for what in NEEDS} == {200}

    await until(is_back, "not back", within_s=BACK_WITHIN_S)
    kept = await asked(ground, context, "/api/v1/settings")
    assert kept.json()["settings"]["regional"]["locale"] == ("de" if gone == "redis" else "en")
    changes = (await asked(ground, context, "/api/v1/audit?action=settings.change")).json()["items"]
    assert len(changes) == (1 if gone == "redis" else 0), "the settings and what the audit says of them are one"
    statement = (await asked(ground, context, "/api/v1/isolation")).json()["statement"]
    assert statement["passed"], statement["checks"]
