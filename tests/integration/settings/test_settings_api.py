"""Settings: sparse, with defaults on read, changed under an ETag, refused by path, undone; secrets never shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import text

from strata.app import StrataApp, create_app
from strata.identity.roles import Role
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import TenantStatus, Tier
from tests.builders.http import client_of, token_for_staff
from tests.builders.inventory import api_client
from tests.builders.platform import Tenantry, second_process

SETTINGS = "/api/v1/settings"
HOOK = "https://hooks.slack.example/services/T0/B0/very-secret"


@pytest.fixture(scope="module")
def app(runtime: Runtime) -> StrataApp:
    return create_app(runtime)


@pytest.fixture
async def context(tenant_on: Tenantry) -> TenantContext:
    return await tenant_on(Tier.SHARED)


@pytest.fixture
async def api(runtime: Runtime, app: StrataApp, context: TenantContext) -> AsyncIterator[httpx.AsyncClient]:
    async with api_client(app, runtime, context) as client:
        yield client


async def change(api: httpx.AsyncClient, patch: object, tag: str | None = "*") -> httpx.Response:
    headers = {"Content-Type": "application/merge-patch+json"} | ({} if tag is None else {"If-Match": tag})
    return await api.patch(SETTINGS, content=json.dumps(patch), headers=headers)


async def test_defaults_are_filled_in_and_only_what_was_set_is_kept(api: httpx.AsyncClient) -> None:
    first = await api.get(SETTINGS)
    assert first.headers["etag"] == '"v0"'
    assert first.json()["document"] == {}
    assert first.json()["settings"]["regional"] == {"time_zone": "UTC", "locale": "en", "currency": "USD"}
    assert first.json()["settings"]["notifications"]["email_digest"] == "daily"
    changed = await change(api, {"regional": {"time_zone": "Europe/Berlin"}}, '"v0"')
    assert (changed.status_code, changed.headers["etag"]) == (200, '"v1"')
    assert changed.json()["document"] == {"regional": {"time_zone": "Europe/Berlin"}}
    back = await change(api, {"regional": {"time_zone": None}}, '"v1"')
    assert back.json()["document"] == {}
    same = await change(api, {"regional": {}}, '"v2"')
    assert same.headers["etag"] == '"v2"'
    assert (await api.get(SETTINGS, headers={"If-None-Match": '"v2"'})).status_code == 304


async def test_a_change_needs_what_was_read(api: httpx.AsyncClient) -> None:
    without = await change(api, {"regional": {"currency": "EUR"}}, None)
    assert (without.status_code, without.json()["code"]) == (428, "precondition-required")
    assert without.headers["etag"] == '"v0"'
    answers = await asyncio.gather(
        *(change(api, {"regional": {"currency": code}}, '"v0"') for code in ("EUR", "GBP", "CHF", "SEK"))
    )
    assert sorted(each.status_code for each in answers) == [200, 412, 412, 412]


@pytest.mark.parametrize(
    ("patch", "paths"),
    [
        ({"regional": {"time_zone": "Mars/Olympus"}}, ["/regional/time_zone"]),
        (
            {"regional": {"time_zone": 7, "locale": "xx-XX", "currency": "ABC"}},
            ["/regional/time_zone", "/regional/locale", "/regional/currency"],
        ),
        ({"regional": {"currency": "DEM"}}, ["/regional/currency"]),
        ({"regional": {"colour": "red"}}, ["/regional/colour"]),
        ({"made/up~": {"a": 1}}, ["/made~1up~0"]),
        ({"regional": "Berlin"}, ["/regional"]),
        ({"notifications": {"email_digest": "hourly"}}, ["/notifications/email_digest"]),
        ({"notifications": {"slack_webhook": "http://plain.example/"}}, ["/notifications/slack_webhook"]),
        ({"notifications": {"webhook_url": 5}}, ["/notifications/webhook_url"]),
        (
            {"notifications": {"webhook_url": "secret:00000000-0000-0000-0000-000000000000"}},
            ["/notifications/webhook_url"],
        ),
        ([], [""]),
        ("x", [""]),
    ],
)
async def test_what_does_not_fit_is_refused_by_path(api: httpx.AsyncClient, patch: object, paths: list[str]) -> None:
    refused = await change(api, patch)
    assert (refused.status_code, refused.json()["code"]) == (422, "settings-refused"), refused.text
    assert [error["path"] for error in refused.json()["errors"]] == paths
    assert (await api.get(SETTINGS)).json()["document"] == {}


async def test_what_is_no_json_is_a_bad_request(api: httpx.AsyncClient) -> None:
    for body in (b"", b"{", b"\xff", b'{"a":' + b"1" * 300_000 + b"}"):
        assert (await api.patch(SETTINGS, content=body, headers={"If-Match": "*"})).status_code == 400


async def test_staff_only_parts_are_refused_to_tenants_and_open_to_staff(
    runtime: Runtime, app: StrataApp, api: httpx.AsyncClient, context: TenantContext
) -> None:
    wanted = {"contract": {"account_manager": "Ada"}, "regional": {"locale": "de-DE"}}
    refused = await change(api, wanted)
    assert (refused.status_code, refused.json()["code"]) == (403, "staff-only-setting")
    assert [error["path"] for error in refused.json()["errors"]] == ["/contract/account_manager"]
    async with client_of(app, "console.localhost", token=token_for_staff(runtime.tokens)) as staff:
        address = f"/staff/v1/tenants/{context.slug}/settings"
        assert (await staff.patch(address, json=wanted)).status_code == 428
        made = await staff.patch(address, json=wanted, headers={"If-Match": '"v0"'})
        assert made.json()["document"] == wanted
        assert (await api.get(SETTINGS)).json()["settings"]["contract"]["account_manager"] == "Ada"
        kept = await change(api, {"regional": {"locale": None}})
        assert kept.json()["document"] == {"contract": {"account_manager": "Ada"}}
        refused = await api.post(f"{SETTINGS}/history/1/undo")
        assert refused.status_code == 403
        history = (await staff.get(f"{address}/history")).json()["items"]
        assert [(each["number"], each["actor"]) for each in history] == [(2, "tester"), (1, "staff:staff@tests")]
        page = await staff.get(f"/tenants/{context.slug}/settings", headers={"Accept": "text/html"})
        assert 'value="Ada"' in page.text


async def test_secrets_are_sealed_and_only_referred_to(
    runtime: Runtime, api: httpx.AsyncClient, context: TenantContext
) -> None:
    made = await change(api, {"notifications": {"slack_webhook": HOOK}})
    reference = made.json()["settings"]["notifications"]["slack_webhook"]
    assert reference.startswith("secret:")
    echoed = await change(api, {"notifications": {"slack_webhook": reference, "email_digest": "weekly"}})
    assert echoed.json()["settings"]["notifications"]["slack_webhook"] == reference
    assert await runtime.settings_book.secret(context.id, "notifications", "slack_webhook") == HOOK
    assert await runtime.settings_book.secret(context.id, "notifications", "webhook_url") is None
    everything = [
        (await api.get(address)).text
        for address in (SETTINGS, f"{SETTINGS}/history", "/api/v1/audit", "/api/v1/audit/export")
    ]
    async with runtime.catalog_engine.connect() as connection:
        for table in ("tenant_settings", "settings_change", "tenant_secret", "audit"):
            everything += await connection.scalars(text(f"SELECT t::text FROM {table} AS t"))
    assert not [each for each in everything if "very-secret" in each]
    removed = await change(api, {"notifications": {"slack_webhook": None}})
    assert removed.json()["document"] == {"notifications": {"email_digest": "weekly"}}
    undone = await api.post(f"{SETTINGS}/history/3/undo")
    assert undone.json()["settings"]["notifications"]["slack_webhook"] == reference
    assert await runtime.settings_book.secret(context.id, "notifications", "slack_webhook") == HOOK


async def test_another_tenants_secret_cannot_be_referred_to(
    runtime: Runtime, app: StrataApp, api: httpx.AsyncClient, tenant_on: Tenantry
) -> None:
    reference = (await change(api, {"notifications": {"webhook_url": HOOK}})).json()["settings"]["notifications"][
        "webhook_url"
    ]
    other = await tenant_on(Tier.SHARED)
    async with api_client(app, runtime, other) as theirs:
        assert (await change(theirs, {"notifications": {"webhook_url": reference}})).status_code == 422


async def test_one_change_is_undone_and_later_ones_stay(api: httpx.AsyncClient) -> None:
    await change(api, {"regional": {"time_zone": "Asia/Tokyo", "locale": "ja"}})
    await change(api, {"regional": {"currency": "JPY"}})
    undone = await api.post(f"{SETTINGS}/history/1/undo")
    assert undone.json()["document"] == {"regional": {"currency": "JPY"}}
    history = (await api.get(f"{SETTINGS}/history")).json()["items"]
    assert [(each["number"], each["undoes"]) for each in history] == [(3, 1), (2, None), (1, None)]
    again = await api.post(f"{SETTINGS}/history/1/undo")
    assert (again.status_code, again.json()["code"]) == (409, "nothing-to-undo")
    assert (await api.post(f"{SETTINGS}/history/99/undo")).status_code == 404
    redone = await api.post(f"{SETTINGS}/history/3/undo")
    assert redone.json()["document"]["regional"]["time_zone"] == "Asia/Tokyo"
    actions = [item["action"] for item in (await api.get("/api/v1/audit")).json()["items"]]
    assert actions == ["settings.undo", "settings.undo", "settings.change", "settings.change"]


async def test_the_context_shows_them_in_every_process(
    runtime: Runtime, api: httpx.AsyncClient, context: TenantContext
) -> None:
    async with second_process(runtime) as other:
        assert (await other.contexts.get_by_slug(context.slug)).settings.time_zone == "UTC"
        await change(api, {"regional": {"time_zone": "Pacific/Auckland", "locale": "en-NZ"}})
        async with asyncio.timeout(10):
            while (await other.contexts.get_by_slug(context.slug)).settings.time_zone != "Pacific/Auckland":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert (await runtime.contexts.get_by_slug(context.slug)).settings.locale == "en-NZ"


async def test_the_schema_says_what_there_is(api: httpx.AsyncClient) -> None:
    schema = (await api.get(f"{SETTINGS}/schema")).json()
    assert {"regional", "notifications", "contract"} <= set(schema["properties"])
    assert schema["properties"]["contract"]["readOnly"] is True
    assert schema["additionalProperties"] is False


async def test_only_who_may_reads_and_sets(runtime: Runtime, app: StrataApp, context: TenantContext) -> None:
    async with api_client(app, runtime, context, Role.OPERATOR) as operator:
        for path in (SETTINGS, f"{SETTINGS}/schema", f"{SETTINGS}/history", "/account/settings"):
            assert (await operator.get(path)).status_code == 403
        assert (await change(operator, {})).status_code == 403


async def test_a_tenant_that_is_read_only_changes_nothing(
    runtime: Runtime, app: StrataApp, context: TenantContext
) -> None:
    await runtime.directory.set_status(context.slug, TenantStatus.READ_ONLY, "unpaid", "tests")
    async with api_client(app, runtime, context) as api:
        assert (await change(api, {"regional": {"locale": "de"}})).status_code == 403
        assert (await api.get(SETTINGS)).json()["document"] == {}
