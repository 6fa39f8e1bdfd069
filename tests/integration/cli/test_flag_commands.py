"""strata flag …, strata segment …"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from strata.tenancy.model import Tier
from tests.builders.command import Command
from tests.builders.platform import Tenantry

pytestmark = pytest.mark.usefixtures("runtime")


async def test_a_flag_is_made_tried_rolled_out_and_deleted(strata: Command, tenant_on: Tenantry) -> None:
    tenant, key = await tenant_on(Tier.SHARED), f"c{secrets.token_hex(5)}"
    made = await strata.json("flag", "put", key, "--reason", "new")
    assert (made["version"], made["flag"].get("rollout", 0)) == (1, 0)
    assert key in {each["flag"]["key"] for each in (await strata.json("flag", "list"))["flags"]}
    tried = await strata.json("flag", "rollout", key, "100", "--dry-run")
    assert tried["dry_run"] is True
    assert tenant.slug in {each["tenant"] for each in tried["changed"]}
    assert (await strata.json("flag", "explain", key, tenant.slug))["reason"] == "default"
    assert "tenants would get another variant" in (await strata("flag", "rollout", key, "100", "--dry-run")).out
    await strata.json("flag", "rollout", key, "12.5")
    assert (await strata.json("flag", "show", key))["flag"]["rollout"] == 1250
    await strata.json("flag", "kill", key, "--reason", "smoke")
    assert (await strata.json("flag", "explain", key, tenant.slug))["reason"] == "killed"
    await strata.json("flag", "revive", key)
    await strata.json("flag", "undo", key)
    assert "undo of" in (await strata("flag", "history", key)).out
    await strata.json("flag", "delete", key)
    assert (await strata("flag", "show", key, "--json")).error["code"] == "unknown-flag"


async def test_a_flag_is_for_a_segment_a_tenant_and_users(strata: Command, tenant_on: Tenantry, tmp_path: Path) -> None:
    tenant, key = await tenant_on(Tier.SHARED), f"c{secrets.token_hex(5)}"
    await strata.json("flag", "put", key)
    await strata.json("segment", "put", f"{key}-beta", "--tenant", tenant.slug)
    canary = await strata.json("flag", "canary", key, f"{key}-beta", "--dry-run")
    assert [each["tenant"] for each in canary["changed"]] == [tenant.slug]
    await strata.json("flag", "canary", key, f"{key}-beta")
    assert (await strata.json("flag", "explain", key, tenant.slug))["detail"] == "canary"
    in_use = await strata("segment", "delete", f"{key}-beta", "--json")
    assert (in_use.code, in_use.error["code"]) == (1, "conflict")
    override = ("flag", "override", key, tenant.slug, "off")
    assert [each["tenant"] for each in (await strata.json(*override, "--dry-run"))["changed"]] == [tenant.slug]
    await strata.json(*override, "--reason", "asked")
    assert (await strata.json("flag", "explain", key, tenant.slug))["reason"] == "override"
    await strata.json("flag", "override", key, tenant.slug)
    document = tmp_path / "flag.json"
    seats = {"attribute": "user.seats", "operator": "at-least", "values": [5]}
    document.write_text(json.dumps({"rules": [{"name": "large", "when": [seats], "serve": "on"}]}))
    assert (await strata.json("flag", "put", key, document, "--dry-run"))["asks_users"] is True
    await strata.json("flag", "put", key, document)
    assert (await strata.json("flag", "explain", key, tenant.slug, "--user", "seats=7"))["detail"] == "large"
    await strata.json("segment", "delete", f"{key}-beta")
    assert (await strata("flag", "stale")).code == 0


@pytest.mark.parametrize(
    "words",
    [
        ("flag", "rollout", "no-such-flag", "5"),
        ("flag", "rollout", "any", "101"),
        ("flag", "rollout", "any", "0.001"),
        ("flag", "put", "No Key"),
        ("flag", "undo", "no-such-flag"),
        ("flag", "override", "no-such-flag", "nobody", "on"),
        ("segment", "delete", "no-such-segment"),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_sentence(strata: Command, words: tuple[str, ...]) -> None:
    refused = await strata(*words, "--json")
    assert refused.code == 1
    assert refused.error["detail"].endswith(".")
