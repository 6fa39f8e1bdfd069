"""Flags in the catalog: changed as a whole, tried first, taken back, written down."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from strata.platform.errors import ConflictError, InvalidInputError
from strata.platform.etags import PreconditionFailedError
from strata.platform.paging import Paging
from strata.runtime import Runtime
from strata.tenancy.entitlements.desk import NewGrant
from strata.tenancy.entitlements.grants import GrantKind
from strata.tenancy.flags.compiled_set import PrerequisiteCycleError
from strata.tenancy.flags.desk import UnknownFlagError
from strata.tenancy.flags.history import NothingToUndoError
from strata.tenancy.flags.model import EVERYBODY, Flag, Reason
from strata.tenancy.flags.writing import NewOverride
from strata.tenancy.model import TenantStatus, Tier
from tests.builders import flags as build
from tests.builders.platform import ACTOR, Tenantry


@pytest.fixture
def key() -> str:
    return f"f{secrets.token_hex(5)}"


async def put(runtime: Runtime, key: str, **members: Any) -> Flag:  # noqa: ANN401 - of the flag's document
    return (await runtime.flag_desk.put(build.flag(key, **members), ACTOR)).flag


async def test_a_dry_run_names_exactly_the_tenants_that_then_change(
    runtime: Runtime, tenant_on: Tenantry, key: str
) -> None:
    tenants = [await tenant_on(Tier.SHARED, plan=plan) for plan in ("free", "starter", "starter", "business") * 2]
    suspended = await tenant_on(Tier.SHARED)
    await runtime.directory.set_status(suspended.slug, TenantStatus.SUSPENDED, "unpaid", ACTOR)
    await put(runtime, key, rollout=2000)
    child = f"{key}-child"
    await put(runtime, child, rollout=EVERYBODY, prerequisites=[{"flag": key, "variants": ["on"]}])

    def answers() -> dict[tuple[str, str], str]:
        return {
            (each, context.slug): runtime.flags.evaluate(each, context).variant
            for each in (key, child)
            for context in tenants
        }

    before = answers()
    wanted = build.flag(key, rollout=7000, plan_minimum="starter")
    tried = await runtime.flag_desk.try_flag(wanted, key)
    assert answers() == before, "trying changes nothing"
    assert {effect.flag for effect in tried.effects} == {key, child}
    everyone = [context async for context in runtime.flag_desk._contexts()]
    assert {effect.tenants for effect in tried.effects} == {len(everyone)}
    assert suspended.id in {context.id for context in everyone}

    await runtime.flag_desk.put(wanted, ACTOR)
    after = answers()
    told = {(each.flag, each.tenant): (each.before, each.after) for each in tried.changed}
    mine = {context.slug for context in tenants}
    assert {pair: change for pair, change in told.items() if pair[1] in mine} == {
        pair: (before[pair], after[pair]) for pair in before if before[pair] != after[pair]
    }
    for effect in tried.effects:
        assert sum(effect.after.values()) == effect.tenants
        assert effect.changed == sum(each.flag == effect.flag for each in tried.changed)


async def test_more_tenants_than_a_page_are_all_looked_at(runtime: Runtime, tenant_on: Tenantry, key: str) -> None:
    made = {(await tenant_on(Tier.SHARED)).id for _ in range(5)}
    everyone = {context.id async for context in runtime.flag_desk._contexts()}
    assert made <= everyone
    async with runtime.catalog_engine.connect() as connection:
        routed = await connection.scalar(
            text(
                "SELECT count(*) FROM tenant t JOIN placement p ON p.tenant_id = t.id WHERE t.status NOT IN ('closed', 'provisioning')"
            )
        )
    assert len(everyone) == routed


async def test_an_override_is_seen_at_once_and_survives_what_is_done_to_the_flag(
    runtime: Runtime, tenant_on: Tenantry, key: str
) -> None:
    tenant, other = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    await put(runtime, key)
    tried = await runtime.flag_desk.try_override(key, tenant.slug, "on")
    assert [(each.tenant, each.before, each.after) for each in tried.changed] == [(tenant.slug, "off", "on")]
    await runtime.flag_desk.set_override(key, tenant.slug, NewOverride("on", "pilot"), ACTOR)

    async def outcome(slug: str) -> tuple[bool, Reason]:
        found = runtime.flags.evaluate(key, await runtime.contexts.get_by_slug(slug))
        return found.is_on, found.reason

    assert await outcome(tenant.slug) == (True, Reason.OVERRIDE)
    assert await outcome(other.slug) == (False, Reason.DEFAULT)
    await put(runtime, key, plan_minimum="enterprise")
    await runtime.entitlements.change_plan(tenant.slug, "free", ACTOR)
    assert await outcome(tenant.slug) == (True, Reason.OVERRIDE)
    await runtime.flag_desk.kill(key, ACTOR, killed=True)
    assert await outcome(tenant.slug) == (False, Reason.KILLED)
    await runtime.flag_desk.kill(key, ACTOR, killed=False)
    assert await outcome(tenant.slug) == (True, Reason.OVERRIDE)
    with pytest.raises(ConflictError, match="1 tenants"):
        await runtime.flag_desk.delete(key, ACTOR)
    with pytest.raises(ConflictError, match="set by hand"):
        await put(runtime, key, variants={"blue": 1}, on="blue", off="blue", default="blue")
    await runtime.flag_desk.set_override(key, tenant.slug, None, ACTOR)
    assert await outcome(tenant.slug) == (False, Reason.PLAN)


async def test_an_override_for_a_time_ends(runtime: Runtime, tenant_on: Tenantry, key: str) -> None:
    tenant = await tenant_on(Tier.SHARED)
    await put(runtime, key)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    await runtime.flag_desk.set_override(key, tenant.slug, NewOverride("on", "trial", tomorrow), ACTOR)
    assert runtime.flags.is_on(key, await runtime.contexts.get_by_id(tenant.id))
    async with runtime.catalog_engine.begin() as connection:
        await connection.execute(
            text("UPDATE flag_override SET expires_at = now() - interval '1 s' WHERE flag = :key"), {"key": key}
        )
    assert tenant.id in await runtime.flag_desk.end_expired_overrides()
    assert not runtime.flags.is_on(key, await runtime.contexts.get_by_id(tenant.id))
    [newest, _, _] = (await runtime.flag_desk.history(key, Paging())).items
    assert (newest.actor, newest.reason, newest.after) == ("system", "expired", None)


async def test_changes_are_taken_back_one_after_the_other(runtime: Runtime, tenant_on: Tenantry, key: str) -> None:
    tenant = await tenant_on(Tier.SHARED)
    desk = runtime.flag_desk
    await put(runtime, key, rollout=100)
    await put(runtime, key, rollout=200)
    await desk.set_override(key, tenant.slug, NewOverride("on", "pilot"), ACTOR)
    await put(runtime, key, rollout=EVERYBODY)

    tried = await desk.try_undo(key)
    assert tenant.slug not in {each.tenant for each in tried.changed}
    await desk.undo(key, ACTOR, reason="too early")
    assert (await desk.get(key)).flag.rollout == 200
    assert [each.tenant for each in (await desk.try_undo(key)).changed] == [tenant.slug]
    undone = await desk.undo(key, ACTOR)
    assert undone.subject == "override"
    assert await desk.overrides(key) == []
    await desk.undo(key, ACTOR)
    assert (await desk.get(key)).flag.rollout == 100
    await desk.undo(key, ACTOR)
    with pytest.raises(UnknownFlagError):
        await desk.get(key)
    assert key not in runtime.flags
    with pytest.raises(NothingToUndoError):
        await desk.undo(key, ACTOR)
    page = await desk.history(key, Paging(3))
    assert [each.undoes is not None for each in page.items] == [True] * 3
    rest = await desk.history(key, Paging(200, page.next_cursor))
    assert len(rest.items) == 5

    await put(runtime, key, rollout=300)
    await desk.delete(key, ACTOR)
    await desk.undo(key, ACTOR)
    assert (await desk.get(key)).flag.rollout == 300, "an undo brings a deleted flag back"


async def test_history_and_audit_are_only_added_to(runtime: Runtime, key: str) -> None:
    await put(runtime, key, rollout=100)
    await put(runtime, key, rollout=100)
    assert len((await runtime.flag_desk.history(key, Paging())).items) == 1, "the same again is no change"
    async with runtime.catalog_engine.connect() as connection:
        actions = (
            await connection.execute(text("SELECT action, actor FROM audit WHERE subject = :key"), {"key": key})
        ).all()
    assert [tuple(each) for each in actions] == [("flag.put", ACTOR)]
    with pytest.raises(Exception, match="only ever added"):
        async with runtime.catalog_engine.begin() as connection:
            await connection.execute(text("UPDATE flag_change SET reason = 'x' WHERE name = :key"), {"key": key})


async def test_prerequisites_are_checked_against_the_others(runtime: Runtime, key: str) -> None:
    other = f"{key}-other"
    await put(runtime, key)
    await put(runtime, other, prerequisites=[{"flag": key, "variants": ["on"]}])
    with pytest.raises(PrerequisiteCycleError):
        await put(runtime, key, prerequisites=[{"flag": other, "variants": ["on"]}])
    with pytest.raises(InvalidInputError, match=key):
        await runtime.flag_desk.delete(key, ACTOR)
    with pytest.raises(InvalidInputError, match="no variant"):
        await put(runtime, key, variants={"a": 1}, on="a", off="a", default="a")
    assert (await runtime.flag_desk.get(key)).version == 1


async def test_two_who_close_a_circle_at_once_do_not_both_succeed(runtime: Runtime, key: str) -> None:
    one, two = f"{key}-1", f"{key}-2"
    await put(runtime, one)
    await put(runtime, two)
    outcomes = await asyncio.gather(
        put(runtime, one, prerequisites=[{"flag": two, "variants": ["on"]}]),
        put(runtime, two, prerequisites=[{"flag": one, "variants": ["on"]}]),
        return_exceptions=True,
    )
    assert sorted(isinstance(each, PrerequisiteCycleError) for each in outcomes) == [False, True]


async def test_segments_are_in_use_or_gone(runtime: Runtime, tenant_on: Tenantry, key: str) -> None:
    tenant = await tenant_on(Tier.SHARED)
    name = f"{key}-beta"
    desk = runtime.flag_desk
    await desk.put_segment(build.segment(name), ACTOR)
    rule = {"name": "beta", "when": [{"operator": "in-segment", "values": [name]}], "serve": "on"}
    await put(runtime, key, rules=[rule])
    tried = await desk.try_segment(build.segment(name, tenants=[str(tenant.id)]))
    assert [(each.flag, each.tenant) for each in tried.changed] == [(key, tenant.slug)]
    await desk.put_segment(build.segment(name, tenants=[str(tenant.id)]), ACTOR)
    assert runtime.flags.evaluate(key, tenant).detail == "beta"
    with pytest.raises(ConflictError, match=key):
        await desk.delete_segment(name, ACTOR)
    await put(runtime, key)
    await desk.delete_segment(name, ACTOR)
    assert name not in {each.name for each in await desk.segments()}


async def test_a_change_of_what_somebody_else_has_changed_is_refused(runtime: Runtime, key: str) -> None:
    await put(runtime, key)
    await runtime.flag_desk.put(build.flag(key, rollout=1), ACTOR, if_match='"v1"')
    with pytest.raises(PreconditionFailedError):
        await runtime.flag_desk.put(build.flag(key, rollout=2), ACTOR, if_match='"v1"')


async def test_a_grant_can_be_a_condition(runtime: Runtime, tenant_on: Tenantry, key: str) -> None:
    tenant = await tenant_on(Tier.SHARED)
    has = {"attribute": "tenant.features", "operator": "equals", "values": ["sso"]}
    await put(runtime, key, rules=[{"name": "has sso", "when": [has], "serve": "on"}])
    assert not runtime.flags.is_on(key, tenant)
    await runtime.entitlements.grant(tenant.slug, NewGrant(GrantKind.FEATURE, "sso", "pilot"), ACTOR)
    assert runtime.flags.is_on(key, await runtime.contexts.get_by_id(tenant.id))


async def test_a_tenant_that_is_deleted_takes_its_overrides_along(
    runtime: Runtime, tenant_on: Tenantry, key: str
) -> None:
    tenant = await tenant_on(Tier.SCHEMA)
    await put(runtime, key)
    await runtime.flag_desk.set_override(key, tenant.slug, NewOverride("on", "pilot"), ACTOR)
    await runtime.provisioning.delete(tenant.slug, ACTOR)
    assert await runtime.flag_desk.overrides(key) == []
