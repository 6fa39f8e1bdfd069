from __future__ import annotations

from typing import Any
from uuid import uuid4

from strata.runtime import Runtime
from strata.tenancy.model import Tier
from strata.tenancy.neighbours.advice import NewAdvice
from strata.tenancy.neighbours.tables import AdviceKind
from tests.builders.command import Command
from tests.builders.neighbours import noisy
from tests.builders.platform import Tenantry


async def advised(strata: Command, slug: str) -> dict[str, dict[str, Any]]:
    """By kind."""
    seen = await strata.json("neighbours", "list")
    return {each["kind"]: each for each in seen["advice"] if each["tenant"] == slug}


async def test_advice_is_seen_and_carried_out_with_one_command(
    strata: Command, runtime: Runtime, tenant_on: Tenantry
) -> None:
    _, loud = await noisy(runtime, tenant_on, plan="enterprise")
    ours = await advised(strata, loud.slug)
    assert set(ours) == {"throttle", "move"}
    shown = (await strata("neighbours", "list")).out
    for words in (loud.slug, "hurts-others", ours["move"]["id"], "CPU (ESTIMATE)"):
        assert words in shown

    said = await strata("neighbours", "carry-out", ours["throttle"]["id"])
    assert (said.code, "may send 600 requests a minute" in said.out) == (0, True)
    granted = await strata.json("tenant", "entitlements", loud.slug)
    assert [(each["name"], each["amount"]) for each in granted["grants"]] == [("api_rate_per_minute", 600)]
    assert loud.slug in (await strata.json("neighbours", "carry-out", ours["move"]["id"]))["done"]
    (move,) = await runtime.desk.moves.newest(slug=loud.slug, unfinished=True, before=None, limit=5)
    assert move.target.tier is Tier.DEDICATED
    assert await advised(strata, loud.slug) == {}
    assert "carried-out" in (await strata("neighbours", "list")).out
    audited = await strata.json("audit", "list", "--action", "advice.carry-out", "--subject", loud.slug)
    assert len(audited["items"]) == 2
    assert all(each["actor"].startswith("cli/") for each in audited["items"])


async def test_what_cannot_be_carried_out_is_said_in_a_sentence(
    strata: Command, runtime: Runtime, tenant_on: Tenantry
) -> None:
    tenant = await tenant_on(Tier.SHARED)
    action = {"table": "product", "columns": ["tenant_id", "unit"], "fingerprint": "x"}
    wanted = NewAdvice(tenant.id, AdviceKind.INDEX, "x", "It wants an index on product (tenant_id, unit).", action)
    await runtime.neighbours.propose([wanted])
    advice = (await advised(strata, tenant.slug))["index"]["id"]
    for words, code in (
        (("carry-out", advice), "advice-needs-a-person"),
        (("carry-out", str(uuid4())), "not-found"),
    ):
        said = await strata("neighbours", *words, "--json")
        assert (said.code, said.error["code"]) == (1, code)
    assert (await strata("neighbours", "dismiss", advice)).out.strip() == "Dismissed."
    said = await strata("neighbours", "dismiss", advice)
    assert (said.code, len(said.err.splitlines())) == (1, 1)
    assert "decided already: dismissed, by cli/" in said.err
