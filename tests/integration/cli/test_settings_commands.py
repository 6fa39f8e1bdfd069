from __future__ import annotations

import json
from pathlib import Path

from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.command import Command
from tests.builders.platform import Tenantry


async def test_settings_are_set_shown_found_and_undone(
    strata: Command, runtime: Runtime, tenant_on: Tenantry, tmp_path: Path
) -> None:
    berlin, utc = [await tenant_on(Tier.SHARED) for _ in range(2)]
    file = tmp_path / "patch.json"
    file.write_text(json.dumps({"regional": {"time_zone": "Europe/Berlin"}, "contract": {"account_manager": "Ada"}}))
    assert (await strata.json("settings", "set", berlin.slug, str(file)))["version"] == 1
    assert (await strata.json("settings", "show", berlin.slug))["settings"]["contract"]["account_manager"] == "Ada"

    async def found(*where: str) -> set[str]:
        conditions = [word for each in where for word in ("--where", each)]
        listed = await strata.json("tenant", "list", "--limit", "1000", *conditions)
        return {tenant["slug"] for tenant in listed["tenants"]}

    in_berlin, in_utc = await found("settings.regional.time_zone=Europe/Berlin"), await found("regional.time_zone=UTC")
    assert berlin.slug in in_berlin - in_utc
    assert utc.slug in in_utc - in_berlin
    assert berlin.slug in await found("regional.time_zone=Europe/Berlin", "contract.account_manager=Ada")
    assert berlin.slug not in await found("regional.time_zone=Europe/Berlin", "contract.account_manager=Bob")

    history = (await strata.json("settings", "history", berlin.slug))["items"]
    assert [entry["number"] for entry in history] == [1]
    assert (await strata.json("settings", "undo", berlin.slug, "1"))["document"] == {}
    assert "regional.time_zone = UTC" in (await strata("settings", "schema")).out


async def test_what_is_wrong_is_said_in_a_sentence(strata: Command, tenant_on: Tenantry, tmp_path: Path) -> None:
    tenant = await tenant_on(Tier.SHARED)
    file = tmp_path / "patch.json"
    for content, code in (("{", "unreadable-document"), ('{"regional":{"locale":"tlh"}}', "settings-refused")):
        file.write_text(content)
        said = await strata("settings", "set", tenant.slug, str(file), "--json")
        assert (said.code, said.error["code"]) == (1, code)
    for where in ("regional.colour=red", "regional.time_zone"):
        said = await strata("tenant", "list", "--where", where, "--json")
        assert (said.code, said.error["code"]) == (1, "invalid-input")
