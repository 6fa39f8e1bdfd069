"""Staff steer imports by flags, which the product asks through OpenFeature."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from strata.app import StrataApp
from strata.inventory.imports.flags import BATCH_ROWS, PAUSED, batch_rows
from strata.platform.settings import ImportSettings
from strata.runtime import Runtime
from strata.tenancy.flags.writing import NewOverride
from strata.tenancy.model import Tier
from tests.builders.flags import flag
from tests.builders.http import client_of, token_for
from tests.builders.platform import ACTOR, Tenantry
from tests.builders.queued_imports import upload

FILE = b"sku,name,quantity\nA,A,1\n"


@pytest.fixture
async def steered(runtime: Runtime) -> AsyncIterator[None]:
    """Both flags, off for all but those for whom they are set by hand."""
    rows = {"usual": 250, "small": 20, "absurd": 10**9}
    await runtime.flag_desk.put(flag(PAUSED), ACTOR)
    await runtime.flag_desk.put(flag(BATCH_ROWS, variants=rows, off="usual", on="small", default="usual"), ACTOR)
    yield
    for key in (PAUSED, BATCH_ROWS):
        for each in await runtime.flag_desk.overrides(key):
            await runtime.flag_desk.set_override(key, each.tenant, None, ACTOR)
        await runtime.flag_desk.delete(key, ACTOR)


@pytest.mark.usefixtures("steered")
async def test_new_files_are_refused_while_imports_are_paused(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry
) -> None:
    paused, other = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    await runtime.flag_desk.set_override(PAUSED, paused.slug, NewOverride("on", "the cell is full"), ACTOR)
    for tenant, status in ((paused, 503), (other, 202)):
        async with client_of(whole_app, f"{tenant.slug}.localhost", token=token_for(runtime.tokens, tenant)) as client:
            answer = await upload(client, FILE)
            assert answer.status_code == status
            page = await client.get("/imports", headers={"Accept": "text/html"})
            assert ("no new files" in page.text) is (tenant is paused)
            if tenant is paused:
                assert answer.json()["code"] == "imports-paused"
                assert answer.headers["retry-after"] == "300"
    await runtime.flag_desk.kill(PAUSED, ACTOR, killed=True)
    async with client_of(whole_app, f"{paused.slug}.localhost", token=token_for(runtime.tokens, paused)) as client:
        assert (await upload(client, FILE)).status_code == 202


@pytest.mark.usefixtures("steered")
async def test_the_size_of_batches_is_the_flags_within_reason(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    settings = ImportSettings(batch_rows=250)

    async def rows(variant: str | None) -> int:
        if variant is not None:
            await runtime.flag_desk.set_override(BATCH_ROWS, tenant.slug, NewOverride(variant, "trial"), ACTOR)
        return batch_rows(runtime.flag_client, await runtime.contexts.get_by_id(tenant.id), settings)

    assert [await rows(each) for each in (None, "small", "absurd")] == [250, 20, 10_000]


async def test_without_flags_everything_is_as_it_was(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.SHARED)
    context = await runtime.contexts.get_by_id(tenant.id)
    assert batch_rows(runtime.flag_client, context, ImportSettings(batch_rows=33)) == 33
