"""The pages of moves and waves: who may see them, forms that come from elsewhere or are out of date, a silent catalog."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.exc import OperationalError

from strata.app import StrataApp
from strata.console.live import END, SILENT, Look, live
from strata.migrator.desk import Order
from strata.migrator.phases import Phase, Wish
from strata.moving import keeper
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.platform import ACTOR, SECOND_CELL, Tenantry

NOBODY = "01a22358-15b1-753f-b1b1-2261e5717cdf"
PAGES = ("/moves", "/moves/new", "/waves", "/waves/new")


@pytest.mark.parametrize("path", PAGES)
async def test_they_are_for_staff_on_the_console_alone(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry, path: str
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    as_tenant, as_staff = token_for(runtime.tokens, tenant), token_for_staff(runtime.tokens)
    for host, token, status in (
        (f"{tenant.slug}.localhost", as_tenant, 404),
        ("console.localhost", as_tenant, 403),
        ("console.localhost", None, 401),
        ("console.localhost", as_staff, 200),
    ):
        async with client_of(whole_app, host, token=token) as client:
            assert (await client.get(path)).status_code == status, (host, status)


@pytest.mark.parametrize(
    "path", ["/moves", f"/moves/{NOBODY}/complete", f"/moves/{NOBODY}/accept-loss", "/waves", f"/waves/{NOBODY}/cancel"]
)
async def test_a_form_on_a_strangers_page_moves_nobody(runtime: Runtime, whole_app: StrataApp, path: str) -> None:
    async with client_of(whole_app, "console.localhost") as client:
        client.cookies.set("strata_session", token_for_staff(runtime.tokens))
        refused = await client.post(path, data={"tenant": "x"}, headers={"Origin": "http://evil.example"})
        same = await client.post(path, data={"tenant": "x"}, headers={"Origin": "http://console.localhost"})
    assert refused.status_code == 403
    assert same.status_code in {404, 409, 422}


async def test_a_form_that_is_out_of_date_says_so_and_does_nothing(
    runtime: Runtime, whole_app: StrataApp, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    order = {"tenant": tenant.slug, "to": "schema", "hours": "1", "leaving": f"schema in {SECOND_CELL}"}
    headers = {"Accept": "text/html"}
    async with client_of(whole_app, "console.localhost", token=token_for_staff(runtime.tokens)) as client:
        elsewhere = await client.post("/moves", data=order, headers=headers)
        assert (elsewhere.status_code, "is not where it was" in elsewhere.text) == (409, True)
        for wrong in ({"to": "palace"}, {"hours": "ten"}, {"tenant": "no-such"}):
            assert (await client.post("/moves", data=order | wrong, headers=headers)).status_code in {404, 422}, wrong
        assert await runtime.desk.moves.newest(slug=tenant.slug) == []

        move = await runtime.desk.start(Order(tenant.slug, Tier.SCHEMA, hold=True), ACTOR)
        stale = await client.post(f"/moves/{move.id}/cancel", data={"seen": "copying"}, headers=headers)
        assert (stale.status_code, "it is pending now" in stale.text) == (409, True)
        late = await client.post(f"/moves/{move.id}/rollback", data={"seen": "pending"}, headers=headers)
        assert (late.status_code, "cannot be asked to rollback" in late.text) == (409, True)
        assert (await runtime.desk.moves.get(move.id)).wish is None
        asked = await client.post(f"/moves/{move.id}/cancel", data={"seen": "pending"}, headers=headers)
        assert (asked.status_code, asked.headers["location"]) == (303, f"/moves/{move.id}")
        assert (await runtime.desk.moves.get(move.id)).wish is Wish.CANCEL
        assert (await client.get(f"/moves/{NOBODY}")).status_code == 404
    # Its claims are on a schema in which other tests' tenants live.
    cancelled = await keeper(runtime).work_on(move.id)
    assert cancelled is not None
    assert cancelled.phase is Phase.CANCELLED


async def test_a_catalog_that_is_silent_is_said_and_does_not_end_what_is_shown() -> None:
    async def looks() -> AsyncIterator[Look | Exception]:
        yield Look({"figures": "one", "acts": "press"}, rests=False)
        yield OperationalError("SELECT", {}, OSError("gone"))
        yield OSError("gone")
        yield Look({"figures": "two", "acts": "press"}, rests=True)

    to_come = looks()

    async def look() -> Look:
        found = await anext(to_come)
        if isinstance(found, Exception):
            raise found
        return found

    told = [(message.event, message.data) async for message in live(look)]
    assert told == [
        ("figures", "one"),
        ("acts", "press"),
        (SILENT, "The catalog does not answer: this may be old."),
        (SILENT, ""),
        ("figures", "two"),
        (END, "ended"),
    ]
