"""Flags asked through the standard's own SDK."""

from __future__ import annotations

import secrets

import pytest
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason as StandardReason

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.flags.provider import flag_context
from strata.tenancy.flags.writing import NewOverride
from strata.tenancy.model import Tier
from tests.builders import flags as build
from tests.builders.platform import ACTOR, Tenantry, second_process


@pytest.fixture
def key() -> str:
    return f"o{secrets.token_hex(5)}"


@pytest.fixture
async def tenant(runtime: Runtime, tenant_on: Tenantry) -> TenantContext:
    made = await tenant_on(Tier.SHARED)
    return await runtime.contexts.get_by_id(made.id)


async def test_every_type_comes_with_its_variant_and_why(runtime: Runtime, tenant: TenantContext, key: str) -> None:
    payloads = {"flag": True, "text": "blue", "number": 7, "share": 0.5, "object": {"rows": [1]}}
    for name, payload in payloads.items():
        document = {"variants": {"a": payload}, "on": "a", "off": "a", "default": "a"}
        await runtime.flag_desk.put(build.flag(f"{key}-{name}", **document), ACTOR)
    client, context = runtime.flag_client, flag_context(tenant)
    assert client.get_boolean_value(f"{key}-flag", default_value=False, evaluation_context=context) is True
    assert client.get_string_value(f"{key}-text", "red", context) == "blue"
    assert client.get_integer_value(f"{key}-number", 1, context) == 7
    assert client.get_float_value(f"{key}-share", 0.1, context) == 0.5
    assert client.get_object_value(f"{key}-object", {}, context) == {"rows": [1]}
    details = client.get_integer_details(f"{key}-number", 1, context)
    assert (details.variant, details.reason) == ("a", StandardReason.DEFAULT)
    assert details.flag_metadata == {"reason": "default", "detail": ""}
    wrong = client.get_boolean_details(f"{key}-number", default_value=True, evaluation_context=context)
    assert (wrong.value, wrong.error_code) == (True, ErrorCode.TYPE_MISMATCH)


async def test_who_cannot_be_told_gets_the_default(runtime: Runtime, tenant: TenantContext, key: str) -> None:
    client = runtime.flag_client
    unknown = client.get_boolean_details(key, default_value=True, evaluation_context=flag_context(tenant))
    assert (unknown.value, unknown.error_code, unknown.reason) == (True, ErrorCode.FLAG_NOT_FOUND, StandardReason.ERROR)
    assert client.get_boolean_value(key, default_value=False, evaluation_context=flag_context(tenant)) is False, (
        "off where nothing else was wanted"
    )
    await runtime.flag_desk.put(build.flag(key, rollout=10_000), ACTOR)
    for targeting_key in (None, "not-an-id", str(build.tenant().id)):
        found = client.get_boolean_details(
            key, default_value=False, evaluation_context=EvaluationContext(targeting_key)
        )
        assert (found.value, found.error_code) == (False, ErrorCode.TARGETING_KEY_MISSING), targeting_key


async def test_the_id_alone_will_do_while_the_context_is_held(
    runtime: Runtime, tenant: TenantContext, key: str
) -> None:
    await runtime.flag_desk.put(build.flag(key, rollout=10_000), ACTOR)
    await runtime.contexts.get_by_id(tenant.id)
    by_id = EvaluationContext(str(tenant.id))
    assert runtime.flag_client.get_boolean_value(key, default_value=False, evaluation_context=by_id)
    runtime.contexts.clear()
    assert not runtime.flag_client.get_boolean_value(key, default_value=False, evaluation_context=by_id)
    assert runtime.flag_client.get_boolean_value(key, default_value=False, evaluation_context=flag_context(tenant))


async def test_attributes_of_the_user_reach_the_rules(runtime: Runtime, tenant: TenantContext, key: str) -> None:
    operators = {"attribute": "user.role", "operator": "equals", "values": ["operator"]}
    await runtime.flag_desk.put(build.flag(key, rules=[{"name": "r", "when": [operators], "serve": "on"}]), ACTOR)
    client = runtime.flag_client
    found = client.get_boolean_details(
        key, default_value=False, evaluation_context=flag_context(tenant, {"role": "operator"})
    )
    assert (found.value, found.reason) == (True, StandardReason.TARGETING_MATCH)
    assert not client.get_boolean_value(
        key, default_value=False, evaluation_context=flag_context(tenant, {"role": "viewer"})
    )


async def test_reasons_of_the_standard(runtime: Runtime, tenant: TenantContext, key: str) -> None:
    async def reason() -> object:
        held = await runtime.contexts.get_by_id(tenant.id)
        return runtime.flag_client.get_boolean_details(
            key, default_value=False, evaluation_context=flag_context(held)
        ).reason

    await runtime.flag_desk.put(build.flag(key, rollout=10_000), ACTOR)
    assert await reason() == StandardReason.SPLIT
    await runtime.flag_desk.set_override(key, tenant.slug, NewOverride("on", "pilot"), ACTOR)
    assert await reason() == StandardReason.TARGETING_MATCH
    await runtime.flag_desk.kill(key, ACTOR, killed=True)
    assert await reason() == StandardReason.DISABLED


async def test_two_runtimes_of_a_process_have_providers_of_their_own(runtime: Runtime, key: str) -> None:
    async with second_process(runtime) as other:
        assert other.flag_client.domain != runtime.flag_client.domain
    closed = other.flag_client.get_boolean_details(key, default_value=True, evaluation_context=EvaluationContext("x"))
    assert (closed.value, closed.variant) == (True, "Passed in default")
