"""Usage as tenants and staff get it: API, file, page."""

from __future__ import annotations

import csv
import io
from datetime import date, timedelta

import pytest

from strata.app import StrataApp
from strata.identity.roles import Role
from strata.platform.ids import new_id
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from strata.tenancy.usage.book import Batch, today
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.platform import Tenantry


async def used(runtime: Runtime, context: TenantContext, day: date, **amounts: int) -> None:
    counted = {(context.id, name.replace("_", "-")): amount for name, amount in amounts.items()}
    assert await runtime.usage.count(Batch(new_id(), day, counted, frozenset()))


@pytest.fixture
async def context(runtime: Runtime, tenant_on: Tenantry) -> TenantContext:
    made = await tenant_on(Tier.SHARED)
    await used(runtime, made, date(2026, 3, 4), api_calls=40, bytes_out=2_500_000)
    await used(runtime, made, date(2026, 3, 5), api_calls=2)
    return made


async def test_a_tenant_reads_its_month(runtime: Runtime, whole_app: StrataApp, context: TenantContext) -> None:
    async with client_of(whole_app, f"{context.slug}.localhost", token=token_for(runtime.tokens, context)) as client:
        report = (await client.get("/api/v1/usage", params={"period": "2026-03"})).json()
        assert report["period"] == "2026-03"
        assert {line["meter"]: line["amount"] for line in report["totals"]} == {
            "api-calls": 42,
            "bytes-out": 2_500_000,
        }
        assert [line["amount"] for line in report["days"] if line["meter"] == "api-calls"] == [40, 2]
        exported = await client.get("/api/v1/usage/export", params={"period": "2026-03"})
        assert exported.headers["content-type"].startswith("text/csv")
        lines = list(csv.DictReader(io.StringIO(exported.text)))
        assert sum(int(line["amount"]) for line in lines if line["meter"] == "api-calls" and line["day"]) == 42
        assert (await client.get("/api/v1/usage", params={"period": "2026-13"})).status_code == 422
        assert (await client.get("/api/v1/usage", params={"month": "2026-03"})).status_code == 400
        page = await client.get("/account/usage", params={"period": "2026-03"})
        assert "2.5 MB" in page.text
        assert "most on 2026-03-04: 40" in page.text


async def test_only_who_may_sees_it(runtime: Runtime, whole_app: StrataApp, context: TenantContext) -> None:
    operator = token_for(runtime.tokens, context, Role.OPERATOR)
    async with client_of(whole_app, f"{context.slug}.localhost", token=operator) as client:
        for path in ("/api/v1/usage", "/api/v1/usage/export", "/account/usage"):
            assert (await client.get(path)).status_code == 403
    async with client_of(whole_app, f"{context.slug}.localhost", token=token_for_staff(runtime.tokens)) as client:
        assert (await client.get("/api/v1/usage")).status_code == 403


async def test_staff_see_everybody_and_who_grows(runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry) -> None:
    now = today()
    growing, steady, new = [await tenant_on(Tier.SHARED) for _ in range(3)]
    for context, before, after in ((growing, 10**9, 3 * 10**9), (steady, 10**9, 10**9), (new, 0, 5 * 10**8)):
        await used(runtime, context, now - timedelta(days=9), rows_touched=before)
        await used(runtime, context, now - timedelta(days=2), rows_touched=after)
        # Of the day that is not over nothing can be said yet.
        await used(runtime, context, now, rows_touched=10**12)
    async with client_of(whole_app, "console.localhost", token=token_for_staff(runtime.tokens)) as client:
        growth = (await client.get("/staff/v1/usage/growth", params={"meter": "rows-touched"})).json()["items"]
        ours = [each for each in growth if each["slug"] in {growing.slug, steady.slug, new.slug}]
        assert [(each["slug"], each["percent"]) for each in ours] == [(growing.slug, 200), (new.slug, None)]
        assert (await client.get("/staff/v1/usage/growth", params={"meter": "joy"})).status_code == 422
        page = (await client.get("/usage", params={"meter": "rows-touched"})).text
        assert growing.name in page
        assert "+200 %" in page
        report = (await client.get(f"/staff/v1/tenants/{growing.slug}/usage")).json()
        assert {line["meter"] for line in report["totals"]} == {"rows-touched"}
        assert (await client.get(f"/staff/v1/tenants/{growing.slug}/usage/export")).text.startswith("period,day,")
        assert (await client.get("/staff/v1/tenants/nobody-there/usage")).status_code == 404
