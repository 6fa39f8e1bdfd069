"""From a real load on a real cell to a finding, its advice, and doing what it says."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from strata.app import StrataApp, create_app
from strata.console.neighbours import NeedsAPersonError, carry_out, dismiss, look
from strata.identity.permissions import Permission
from strata.identity.roles import Role, permissions_of
from strata.migrator.phases import Phase
from strata.platform.paging import Paging
from strata.platform.tokens import Audience
from strata.runtime import Runtime
from strata.tenancy.audit.entries import EntryFilter
from strata.tenancy.catalog.audit_chain import list_entries
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from strata.tenancy.neighbours.book import Advice, AdviceDecidedError, NeighbourBook
from strata.tenancy.neighbours.detector import Found, Verdict
from strata.tenancy.neighbours.explaining import Explainer, wanted_index
from strata.tenancy.neighbours.tables import AdviceKind, AdviceState
from strata.tenancy.usage.statements import Slow, fingerprint, without_literals
from tests.builders.http import client_of, token_for_staff
from tests.builders.inventory import stocked
from tests.builders.neighbours import noisy
from tests.builders.platform import Tenantry


async def test_a_noisy_tenant_is_found_throttled_and_the_advice_is_used_up(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    watched, loud = await noisy(runtime, tenant_on)
    (found,) = watched.watch.found[loud.placement.cell]
    assert (found.verdict, found.tenant_id) == (Verdict.HURTS_OTHERS, loud.id)
    seen = await look(runtime.neighbours)
    assert loud.slug in {each.tenant for each in seen.findings if each.verdict is Verdict.HURTS_OTHERS}
    assert loud.slug in {each.tenant for each in seen.loads}
    ours = [each for each in seen.advice if each.tenant == loud.slug]
    # 40 requests in two seconds; of a plan that offers no database of its own.
    assert [(each.kind, each.action) for each in ours] == [
        (AdviceKind.THROTTLE, {"limit": "api_rate_per_minute", "amount": 600})
    ]
    assert "times as long as usual" in ours[0].why
    done = await carry_out(runtime.neighbours, runtime.entitlements, runtime.desk, ours[0].id, "tests")
    assert "600 requests a minute" in done
    assert (await runtime.contexts.fresh(loud.id)).limits.api_rate_per_minute == 600
    assert [each.id for each in await runtime.neighbours.decided(1)] == [ours[0].id]
    with pytest.raises(AdviceDecidedError):
        await carry_out(runtime.neighbours, runtime.entitlements, runtime.desk, ours[0].id, "tests")
    # Decided meanwhile by somebody else: the first decision stands, in the audit too.
    await runtime.neighbours.decide(ours[0], AdviceState.DISMISSED, "others")
    audited = await list_entries(runtime.catalog_engine, Paging(50), EntryFilter(subject=loud.slug))
    assert [(each.actor, each.action) for each in audited.items if each.action.startswith("advice.")] == [
        ("tests", "advice.carry-out")
    ]


async def test_who_may_have_a_database_of_its_own_is_moved_by_one_command(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    _, loud = await noisy(runtime, tenant_on, plan="enterprise")
    (advice,) = [
        each for each in await runtime.neighbours.advice() if each.tenant == loud.slug and each.kind is AdviceKind.MOVE
    ]
    assert advice.action == {"to": "dedicated"}
    await carry_out(runtime.neighbours, runtime.entitlements, runtime.desk, advice.id, "tests")
    (move,) = await runtime.desk.moves.newest(slug=loud.slug, unfinished=True, before=None, limit=5)
    assert move.target.tier is Tier.DEDICATED
    assert move.phase is Phase.PENDING


async def advised(runtime: Runtime, tenant: TenantContext) -> list[Advice]:
    return [each for each in await runtime.neighbours.advice() if each.tenant == tenant.slug]


async def test_a_process_among_several_knows_that_it_sees_a_part(runtime: Runtime, tenant_on: Tenantry) -> None:
    _, loud = await noisy(runtime, tenant_on, processes=2)
    (advice,) = await advised(runtime, loud)
    # 1,200 a minute in each of two.
    assert advice.action["amount"] == 1200
    assert "2400 now" in advice.why


async def test_what_was_decided_is_not_proposed_again_while_the_load_goes_on(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    watched, loud = await noisy(runtime, tenant_on)

    async def goes_on() -> None:
        await watched.window(loud.placement.cell, {loud.id: 6_000_000_000})
        assert [each.tenant_id for each in watched.watch.found[loud.placement.cell]] == [loud.id]

    (advice,) = await advised(runtime, loud)
    await dismiss(runtime.neighbours, advice.id, "tests")
    await goes_on()
    assert await advised(runtime, loud) == []
    async with runtime.catalog_engine.begin() as connection:
        await connection.execute(
            text("UPDATE neighbour_advice SET decided_at = now() - interval '61 minutes' WHERE id = :id"),
            {"id": advice.id},
        )
    await goes_on()
    (again,) = await advised(runtime, loud)
    assert again.kind is AdviceKind.THROTTLE


async def test_processes_that_find_the_same_share_a_finding(runtime: Runtime, tenant_on: Tenantry) -> None:
    book = NeighbourBook(runtime.catalog_engine)
    loud = await tenant_on(Tier.SHARED)
    for load in (2.0, 3.0):
        await book.note("cell-x", Found(Verdict.NOISY, loud.id, 0.9, load, 1.0))
        await book.note("cell-x", Found(Verdict.EVERYONE, None, 1.0, load, 4.0))
    found = [each for each in await book.findings() if each.cell == "cell-x"]
    assert sorted(each.verdict for each in found) == [Verdict.EVERYONE, Verdict.NOISY]
    assert {each.evidence["connections"] for each in found} == {3.0}
    async with runtime.catalog_engine.begin() as connection:
        await connection.execute(
            text("UPDATE neighbour_finding SET seen_at = now() - interval '1 minute' WHERE cell = 'cell-x'")
        )
    await book.end_unseen()
    assert all(each.ended_at for each in await book.findings() if each.cell == "cell-x")


def test_a_statement_is_kept_without_what_was_asked_for() -> None:
    asked = "SELECT id FROM product\n WHERE name = 'O''Hara' AND weight_g > 12.5 AND sku = $1::VARCHAR LIMIT 10"
    kept = without_literals(asked)
    assert kept == "SELECT id FROM product WHERE name = $2 AND weight_g > $3 AND sku = $1::VARCHAR LIMIT $4"
    assert fingerprint("SELECT 1 WHERE x IN ($1, $2)") == fingerprint("SELECT 1 WHERE x IN ($1, $2, $3, $4)")
    assert fingerprint("SELECT a") != fingerprint("SELECT b")


def test_which_columns_an_index_would_want() -> None:
    columns = {"tenant_id", "note", "on_hand", "made_at", "sku"}
    condition = "(((note)::text = ($1)::text) AND (on_hand > $2) AND (made_at < $3) AND (tenant_id = $4))"
    found = wanted_index("stock", condition, columns)
    assert found is not None
    assert found.columns == ("note", "on_hand")
    assert wanted_index("stock", "(tenant_id = $1)", columns) is None
    assert wanted_index("stock", "((sku)::text ~~* $1)", columns) is None


@pytest.mark.parametrize("tier", Tier)
async def test_a_slow_statement_is_explained_in_the_tenants_own_session(
    runtime: Runtime, tenant_on: Tenantry, tier: Tier
) -> None:
    context = await tenant_on(tier)
    await stocked(runtime, context, skus=50)
    # As the session's own measuring would find it, had it been slow.
    statement = "SELECT id FROM product WHERE unit = $1::VARCHAR AND weight_grams > 3"
    slow = Slow(without_literals(statement), calls=3, total_ns=9 * 10**12, rows=150, slowest_ns=900_000_000)
    broken = Slow("SELECT * FROM no_such_table", calls=1, total_ns=8 * 10**12, slowest_ns=700_000_000)
    await runtime.neighbours.note_statements(
        [((context.id, f"good-{tier}"), slow), ((context.id, f"bad-{tier}"), broken)]
    )
    explainer = Explainer(runtime.neighbours, runtime.tenants, runtime.contexts)
    while await explainer.explain_some():
        pass
    kept = {each.fingerprint: each for each in await runtime.neighbours.slow_statements(context.slug)}
    assert kept[f"good-{tier}"].explained
    assert kept[f"bad-{tier}"].explained
    (advice,) = [each for each in await runtime.neighbours.advice() if each.tenant == context.slug]
    assert advice.kind is AdviceKind.INDEX
    assert advice.action["columns"] == ["tenant_id", "unit", "weight_grams"]
    with pytest.raises(NeedsAPersonError, match="index on product"):
        await carry_out(runtime.neighbours, runtime.entitlements, runtime.desk, advice.id, "tests")


async def test_slow_statements_of_sessions_are_noted_and_quick_ones_are_not(
    runtime: Runtime, tenant_on: Tenantry
) -> None:
    context = await tenant_on(Tier.SHARED)
    async with runtime.tenants.reading(context) as session:
        await session.execute(text("SELECT pg_sleep(0.05), 'a secret'"))
        await session.execute(text("SELECT 1"))
    noted = {each.statement for (tenant_id, _), each in runtime.meter.slow.take() if tenant_id == context.id}
    assert noted == {"SELECT pg_sleep($1), $2"}


async def test_staff_decide_on_the_page_and_over_the_api(runtime: Runtime, tenant_on: Tenantry) -> None:
    _, loud = await noisy(runtime, tenant_on)
    app: StrataApp = create_app(runtime)
    async with client_of(app, "console.localhost", token=token_for_staff(runtime.tokens)) as client:
        seen = (await client.get("/staff/v1/neighbours")).json()
        (advice,) = [each for each in seen["advice"] if each["tenant"] == loud.slug]
        page = (await client.get("/neighbours")).text
        assert loud.slug in page
        assert "slows its neighbours down" in page
        done = await client.post(f"/staff/v1/neighbours/advice/{advice['id']}/carry-out")
        assert "requests a minute" in done.json()["done"]
        again = await client.post(f"/staff/v1/neighbours/advice/{advice['id']}/dismiss")
        assert (again.status_code, again.json()["code"]) == (409, "advice-decided")


async def test_who_may_move_tenants_may_not_therefore_limit_them(runtime: Runtime, tenant_on: Tenantry) -> None:
    _, loud = await noisy(runtime, tenant_on, plan="enterprise")
    mover = runtime.tokens.issue(
        subject="mover",
        tenant=None,
        role=Role.STAFF,
        permissions=sorted(set(permissions_of(Role.STAFF)) - {Permission.STAFF_TENANTS_WRITE}),
        audience=Audience.STAFF,
    )
    app: StrataApp = create_app(runtime)
    ours = {each.kind: each for each in await advised(runtime, loud)}
    async with client_of(app, "console.localhost", token=mover) as client:
        throttle = f"/staff/v1/neighbours/advice/{ours[AdviceKind.THROTTLE].id}/carry-out"
        refused = await client.post(throttle)
        assert (refused.status_code, refused.json()["permission"]) == (403, "staff:tenants:write")
        page = (await client.get("/neighbours")).text
        forms = {
            kind: page.partition(f"/neighbours/{advice.id}")[2].partition("</form>")[0] for kind, advice in ours.items()
        }
        assert "carry-out" in forms[AdviceKind.MOVE]
        assert "carry-out" not in forms[AdviceKind.THROTTLE]
        assert (
            await client.post(f"/staff/v1/neighbours/advice/{ours[AdviceKind.MOVE].id}/carry-out")
        ).status_code == 200
    assert [each.kind for each in await advised(runtime, loud)] == [AdviceKind.THROTTLE]
