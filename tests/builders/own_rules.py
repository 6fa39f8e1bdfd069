"""A tenant with fields and rules of its own, and two people who work by them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
from sqlalchemy import text

from strata.app import create_app
from strata.identity.roles import Role
from strata.identity.tokens import tenant_token
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from tests.builders.http import client_of
from tests.builders.inventory import stocked
from tests.builders.platform import admin_of
from tests.builders.settings import settle

_PRODUCTS, _MOVEMENTS, _REQUESTS = "/api/v1/products", "/api/v1/movements", "/api/v1/movement-requests"
_LIMIT = 100
_SETTINGS: dict[str, object] = {
    "custom_fields": {
        "product": [
            {"key": "colour", "label": "Colour", "type": "select", "options": ["red", "blue"], "required": True},
            {"key": "size", "label": "Size", "type": "number"},
        ],
        "movement": [{"key": "carrier", "label": "Carrier", "required": True}],
    },
    "rules": {"approval_above": _LIMIT, "adjustment_reasons": ["found"]},
}
# What the documents say, against the rows that lists find them by.
_ASTRAY = """
WITH said AS (
    SELECT 'product' AS entity, p.id, e.key, e.value
    FROM "{schema}".product p, jsonb_each_text(p.custom) e WHERE p.tenant_id = $1
    UNION ALL
    SELECT 'movement', m.id, e.key, e.value
    FROM "{schema}".movement m, jsonb_each_text(m.custom) e WHERE m.tenant_id = $1
), found AS (
    SELECT entity, entity_id, key, value FROM "{schema}".custom_value WHERE tenant_id = $1
)
SELECT (SELECT count(*) FROM found) AS found,
       (SELECT count(*) FROM (TABLE said EXCEPT ALL TABLE found) x)
       + (SELECT count(*) FROM (TABLE found EXCEPT ALL TABLE said) y) AS astray
"""
_PLAN = text(
    "EXPLAIN SELECT entity_id FROM custom_value"
    " WHERE tenant_id = :tenant AND entity = 'product' AND key = 'colour' AND value = 'red'"
)


class OwnRules:
    """`work` is one round; `check` that everything so far is there, is found and is still the rule."""

    def __init__(
        self, runtime: Runtime, context: TenantContext, olga: httpx.AsyncClient, mara: httpx.AsyncClient
    ) -> None:
        self._runtime = runtime
        self._context = context
        self._olga = olga
        self._mara = mara
        self._made: dict[str, dict[str, object]] = {}
        self._posted: set[str] = set()
        self._asked: list[str] = []

    async def work(self) -> None:
        number = len(self._made)
        custom: dict[str, object] = {"colour": "red" if number % 2 else "blue", "size": number + 0.5}
        made = await self._olga.post(_PRODUCTS, json={"sku": f"C-{number}", "name": "C", "custom": custom})
        assert made.status_code == 201, made.text
        self._made[f"C-{number}"] = custom
        unfit = await self._olga.post(_PRODUCTS, json={"sku": "NEVER", "name": "N", "custom": {"colour": "green"}})
        assert unfit.status_code == 422, unfit.text
        posted = await self._post(1, carrier="DHL")
        assert posted.status_code == 201, posted.text
        self._posted.add(posted.json()["id"])
        waits = await self._post(_LIMIT + 1, carrier="UPS")
        assert waits.status_code == 202, waits.text
        self._asked.append(waits.json()["id"])
        sizes = await self._found(_PRODUCTS, size=str(number + 0.5))
        assert [item["sku"] for item in sizes] == [f"C-{number}"]

    async def check(self) -> None:
        now = await self._runtime.contexts.fresh(self._context.id)
        for colour in ("red", "blue"):
            wanted = {sku: custom for sku, custom in self._made.items() if custom["colour"] == colour}
            found = await self._found(_PRODUCTS, colour=colour)
            assert {item["sku"]: item["custom"] for item in found} == wanted
        assert {item["id"] for item in await self._found(_MOVEMENTS, carrier="DHL")} == self._posted
        await self._decide()
        assert (await self._post(1)).status_code == 422, "the carrier is required"
        assert (await self._post(1, kind="adjust", reason="whim", carrier="DHL")).status_code == 422
        async with admin_of(self._runtime, now.placement.cell) as admin:
            row = await admin.fetchrow(_ASTRAY.format(schema=now.placement.schema_name), now.id)
        assert row is not None
        assert (row["astray"], row["found"] >= len(self._made) * 2 + len(self._posted)) == (0, True), row
        async with self._runtime.tenants.transaction(now) as session:
            await session.execute(text("SET LOCAL enable_seqscan = off"))
            plan = "\n".join(await session.scalars(_PLAN, {"tenant": now.id}))
        assert "value = 'red'" in plan.partition("Index Cond:")[2].partition("Filter:")[0], plan

    async def _decide(self) -> None:
        """The oldest, asked for before the move, and the newest: nobody approves what he has asked for himself."""
        waiting = await self._mara.get(_REQUESTS, params={"state": "pending", "limit": 200})
        assert {each["id"] for each in waiting.json()["items"]} == set(self._asked)
        assert (await self._olga.post(f"{_REQUESTS}/{self._asked[0]}/approval")).status_code == 403
        for request_id in (self._asked.pop(0), self._asked.pop()):
            approved = await self._mara.post(f"{_REQUESTS}/{request_id}/approval")
            assert approved.json()["state"] == "approved", approved.text
            movement = (await self._mara.get(f"{_MOVEMENTS}/{approved.json()['movement_id']}")).json()
            assert (movement["custom"], movement["lines"][0]["quantity"]) == ({"carrier": "UPS"}, _LIMIT + 1)

    async def _found(self, path: str, **custom: str) -> list[dict[str, object]]:
        wanted = {f"custom.{key}": value for key, value in custom.items()}
        items: list[dict[str, object]] = []
        cursor: dict[str, str] = {}
        while True:
            page = (await self._olga.get(path, params={**wanted, **cursor, "limit": "200"})).json()
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = {"cursor": page["next_cursor"]}

    async def _post(self, quantity: int, *, kind: str = "receive", reason: str = "x", **custom: str) -> httpx.Response:
        lines = [{"sku": "S-0", "bin": "B-0", "quantity": quantity}]
        return await self._olga.post(
            _MOVEMENTS, json={"kind": kind, "lines": lines, "reason": reason, "custom": custom}
        )


@asynccontextmanager
async def own_rules(runtime: Runtime, context: TenantContext) -> AsyncIterator[OwnRules]:
    await stocked(runtime, context, skus=1, bins=1)
    await settle(runtime, context.slug, _SETTINGS)
    app = create_app(runtime)
    async with AsyncExitStack() as stack:
        olga, mara = [
            await stack.enter_async_context(
                client_of(
                    app,
                    f"{context.slug}.localhost",
                    token=tenant_token(runtime.tokens, context.id, Role.WAREHOUSE_MANAGER, subject=name),
                )
            )
            for name in ("olga", "mara")
        ]
        yield OwnRules(runtime, context, olga, mara)
