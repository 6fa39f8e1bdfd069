"""A tenant's own rules: reasons of adjustments, approval above a quantity, a threshold for everything without its own."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx
import pytest

from strata.app import StrataApp, create_app
from strata.identity.roles import Role
from strata.identity.tokens import tenant_token
from strata.inventory.alerts.repository import judge
from strata.inventory.movements.models import MovementKind
from strata.inventory.movements.outcomes import Accepted, Refused
from strata.inventory.movements.posting import post_movements
from strata.inventory.movements.schemas import LineIn, MovementDocument
from strata.inventory.products.repository import product_by_sku
from strata.platform.ids import new_id
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.http import client_of
from tests.builders.inventory import stocked
from tests.builders.platform import Tenantry
from tests.builders.settings import settle

MOVEMENTS, REQUESTS = "/api/v1/movements", "/api/v1/movement-requests"


@pytest.fixture(scope="module")
def app(runtime: Runtime) -> StrataApp:
    return create_app(runtime)


async def tenant_with(
    runtime: Runtime, tenant_on: Tenantry, tier: Tier = Tier.SHARED, **rules: object
) -> TenantContext:
    context = await tenant_on(tier)
    await stocked(runtime, context, on_hand=5)
    return await settle(runtime, context.slug, {"rules": rules})


def person(app: StrataApp, runtime: Runtime, context: TenantContext, name: str, role: Role) -> httpx.AsyncClient:
    token = tenant_token(runtime.tokens, context.id, role, subject=name)
    return client_of(app, f"{context.slug}.localhost", token=token)


def moving(kind: str, quantity: int, **more: object) -> dict[str, object]:
    return {"kind": kind, "lines": [{"sku": "S-0", "bin": "B-0", "quantity": quantity}], **more}


@pytest.mark.parametrize("tier", Tier)
async def test_what_is_above_the_limit_waits_for_somebody_else(
    runtime: Runtime, app: StrataApp, tenant_on: Tenantry, tier: Tier
) -> None:
    context = await tenant_with(runtime, tenant_on, tier, approval_above=100)
    async with (
        person(app, runtime, context, "olga", Role.OPERATOR) as olga,
        person(app, runtime, context, "mara", Role.WAREHOUSE_MANAGER) as mara,
    ):
        assert (await olga.post(MOVEMENTS, json=moving("receive", 100))).status_code == 201
        key = {"Idempotency-Key": str(uuid4())}
        asked = await olga.post(MOVEMENTS, json=moving("receive", 101, reference="PO-1"), headers=key)
        assert (asked.status_code, asked.json()["state"]) == (202, "pending"), asked.text
        again = await olga.post(MOVEMENTS, json=moving("receive", 101, reference="PO-1"), headers=key)
        assert (again.json()["id"], again.headers["idempotency-replayed"]) == (asked.json()["id"], "true")
        address = asked.headers["location"]
        assert address == f"{REQUESTS}/{asked.json()['id']}"
        assert (await olga.post(f"{address}/approval")).status_code == 403
        assert (await olga.get(MOVEMENTS, params={"reference": "PO-1"})).json()["items"] == []

        answers = await asyncio.gather(*(mara.post(f"{address}/approval") for _ in range(3)))
        assert sorted(each.status_code for each in answers) == [200, 409, 409]
        [posted] = (await olga.get(MOVEMENTS, params={"reference": "PO-1"})).json()["items"]
        decided = (await olga.get(address)).json()
        assert (decided["state"], decided["decided_by"], decided["movement_id"]) == ("approved", "mara", posted["id"])
        assert posted["created_by"] == "olga"

        own = await mara.post(
            MOVEMENTS, json=moving("pick", -101) | {"lines": [{"sku": "S-0", "bin": "B-0", "quantity": 150}]}
        )
        assert own.status_code == 202
        refused = await mara.post(f"{REQUESTS}/{own.json()['id']}/approval")
        assert (refused.status_code, refused.json()["code"]) == (403, "own-request")
        rejected = await mara.post(f"{REQUESTS}/{own.json()['id']}/rejection", json={"note": "too much"})
        assert (rejected.json()["state"], rejected.json()["note"]) == ("rejected", "too much")
        states = (await olga.get(REQUESTS, params={"state": "rejected"})).json()["items"]
        assert [each["id"] for each in states] == [own.json()["id"]]
        async with person(app, runtime, context, "root", Role.ADMINISTRATOR) as root:
            actions = [entry["action"] for entry in (await root.get("/api/v1/audit")).json()["items"]]
        assert actions[:4] == ["movement.reject", "movement.ask", "movement.approve", "movement.ask"]


async def test_an_approval_that_cannot_be_posted_leaves_it_waiting(
    runtime: Runtime, app: StrataApp, tenant_on: Tenantry
) -> None:
    context = await tenant_with(runtime, tenant_on, approval_above=10)
    async with (
        person(app, runtime, context, "olga", Role.OPERATOR) as olga,
        person(app, runtime, context, "mara", Role.WAREHOUSE_MANAGER) as mara,
    ):
        asked = await olga.post(MOVEMENTS, json=moving("pick", 11))
        approval = f"{REQUESTS}/{asked.json()['id']}/approval"
        assert (await mara.post(approval)).json()["code"] == "stock-shortage"
        assert (await mara.get(f"{REQUESTS}/{asked.json()['id']}")).json()["state"] == "pending"
        await olga.post(MOVEMENTS, json=moving("receive", 10))
        assert (await mara.post(approval)).json()["state"] == "approved"


async def test_it_is_refused_where_the_tenant_wants_that(runtime: Runtime, app: StrataApp, tenant_on: Tenantry) -> None:
    context = await tenant_with(runtime, tenant_on, approval_above=10, above="refuse")
    async with person(app, runtime, context, "olga", Role.OPERATOR) as olga:
        refused = await olga.post(MOVEMENTS, json=moving("receive", 11))
        assert (refused.status_code, refused.json()["code"]) == (409, "approval-needed")
        counted = await olga.post(MOVEMENTS, json=moving("count", 5000))
        assert counted.status_code == 201, "a count says what lies there"


async def test_an_adjustment_needs_one_of_the_reasons(runtime: Runtime, app: StrataApp, tenant_on: Tenantry) -> None:
    context = await tenant_with(runtime, tenant_on, adjustment_reasons=["damaged", "found"])
    async with person(app, runtime, context, "olga", Role.OPERATOR) as olga:
        for reason in (None, "whim"):
            refused = await olga.post(MOVEMENTS, json=moving("adjust", 1) | ({"reason": reason} if reason else {}))
            assert [error["path"] for error in refused.json()["errors"]] == ["/reason"]
        assert (await olga.post(MOVEMENTS, json=moving("adjust", 1, reason="found"))).status_code == 201
        assert (await olga.post(MOVEMENTS, json=moving("receive", 1))).status_code == 201


async def test_what_programs_post_in_batches_is_refused_line_by_line(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_with(runtime, tenant_on, approval_above=10, adjustment_reasons=["found"])

    def document(kind: MovementKind, *quantities: int, reason: str | None = None) -> MovementDocument:
        return MovementDocument(
            new_id(), kind, [LineIn("S-0", "B-0", quantity) for quantity in quantities], reason=reason
        )

    async with runtime.tenants.transaction(context) as session:
        outcomes = await post_movements(
            session,
            [
                document(MovementKind.RECEIVE, 1, 11),
                document(MovementKind.RECEIVE, 10),
                document(MovementKind.ADJUST, 1),
                document(MovementKind.ADJUST, 1, reason="found"),
            ],
            actor="tests",
        )
    assert [type(each) for each in outcomes] == [Refused, Accepted, Refused, Accepted]
    first, third = outcomes[0], outcomes[2]
    assert isinstance(first, Refused)
    assert isinstance(third, Refused)
    assert [(problem.line, problem.code) for problem in first.problems] == [(1, "approval-needed")]
    assert [problem.code for problem in third.problems] == ["bad-reason"]


async def test_a_product_without_a_threshold_has_the_tenants(
    runtime: Runtime, app: StrataApp, tenant_on: Tenantry
) -> None:
    context = await tenant_with(runtime, tenant_on, low_stock_minimum=50)
    async with runtime.tenants.transaction(context) as session:
        product = await product_by_sku(session, "S-0")
        await judge(session, [product.id])
    async with person(app, runtime, context, "olga", Role.OPERATOR) as olga:
        alerts = (await olga.get("/api/v1/stock/alerts", params={"open": "true"})).json()["items"]
        assert [(alert["sku"], alert["minimum"]) for alert in alerts] == [("S-0", 50)]
