"""The plan's storage: a file that does not fit is refused, at once and together with others; what is in use is shown."""

from __future__ import annotations

import asyncio
import random

import pytest

from strata.app import StrataApp
from strata.inventory.imports import repository
from strata.inventory.storage import measure_storage
from strata.platform.jobs.declaration import NoArguments
from strata.platform.jobs.store import JobState
from strata.platform.paging import Paging
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.entitlements.desk import NewGrant
from strata.tenancy.entitlements.grants import GrantKind
from strata.tenancy.model import Tier
from strata.tenancy.usage.meters import Meter
from tests.builders.http import client_of, token_for
from tests.builders.jobs import ended, working
from tests.builders.platform import ACTOR, Tenantry
from tests.builders.queued_imports import upload


def file_of(size_bytes: int, name: str) -> bytes:
    head = f"sku,name,quantity\n{name},".encode()
    # Such that PostgreSQL cannot pack it.
    return head + random.Random(name).randbytes(size_bytes).hex()[: size_bytes - len(head) - 3].encode() + b",1\n"


async def allowed(runtime: Runtime, tenant: TenantContext, megabytes: int) -> None:
    await runtime.entitlements.grant(
        tenant.slug, NewGrant(GrantKind.LIMIT, "storage_mb", "contract 7", megabytes), ACTOR
    )


@pytest.mark.parametrize("tier", Tier)
async def test_files_at_once_never_take_more_than_is_left(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry, tier: Tier
) -> None:
    tenant = await tenant_on(tier)
    await allowed(runtime, tenant, 1)
    async with client_of(whole_app, f"{tenant.slug}.localhost", token=token_for(runtime.tokens, tenant)) as client:
        files = [file_of(300_000, f"S{number}") for number in range(6)]
        answers = await asyncio.gather(*(upload(client, each) for each in files))
        assert sorted(answer.status_code for answer in answers) == [202] * 3 + [403] * 3
        refused = next(answer.json() for answer in answers if answer.status_code == 403)
        assert (refused["code"], refused["limit"], refused["size_bytes"]) == ("storage-full", 1, 300_000)
        form = {"mapping": "stock-list"}
        page = await client.post("/imports", data=form, files={"file": ("more.csv", file_of(300_000, "M"))})
        assert (page.status_code, "0.9 MB are in use" in page.text) == (403, True)
        # One that is cancelled makes room for another.
        address = next(answer.headers["Location"] for answer in answers if answer.status_code == 202)
        assert (await client.post(f"{address}/cancel")).status_code == 200
        assert (await upload(client, file_of(300_000, "M"))).status_code == 202
    async with runtime.tenants.reading(tenant) as session:
        assert len((await repository.list_runs(session, Paging())).items) == 4


async def test_what_was_measured_counts_and_is_shown(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SCHEMA)
    await allowed(runtime, tenant, 1)
    async with client_of(whole_app, f"{tenant.slug}.localhost", token=token_for(runtime.tokens, tenant)) as client:
        assert (await upload(client, file_of(500_000, "W"))).status_code == 202
        async with working(runtime, jobs=[measure_storage]):
            job = await runtime.jobs.defer(measure_storage, tenant.id, NoArguments())
            assert (await ended(runtime, job)).state is JobState.SUCCEEDED
        limits = {each["name"]: each for each in (await client.get("/api/v1/plan")).json()["limits"]}
        assert limits["storage_mb"]["used"] == 1, "of its tables, rounded up; the file that waits is no part of them"
        lines = {each.meter: each.amount for each in await runtime.usage.months(tenant.id)}
        assert lines[Meter.STORAGE_BYTES] > 500_000
        # The file that waits is not counted twice: there is room for another, and not for two.
        assert (await upload(client, file_of(300_000, "X"))).status_code == 202
        assert (await upload(client, file_of(300_000, "X2"))).status_code == 403
        await allowed(runtime, tenant, 0)
        assert (await upload(client, file_of(100, "Y"))).status_code == 403
        await runtime.entitlements.revoke(tenant.slug, GrantKind.LIMIT, "storage_mb", "over", ACTOR)
        assert (await upload(client, file_of(100, "Y"))).status_code == 202
