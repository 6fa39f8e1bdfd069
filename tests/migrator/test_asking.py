"""Moves by command line and by staff API: the same desk, the same answers."""

from __future__ import annotations

import json

import pytest

from strata.app import create_app
from strata.migrator.phases import Phase
from strata.tenancy.model import Tier
from tests.builders.command import Command, environment_for
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.inventory import stocked
from tests.builders.moving import Movers
from tests.builders.platform import SECOND_CELL, SECOND_SERVER, Platform, Tenantry


@pytest.fixture
def typed(moving_platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for name, value in environment_for(moving_platform).items():
        monkeypatch.setenv(name, value)
    return Command(capsys)


async def test_a_move_by_the_command_line(typed: Command, movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)
    await stocked(movers.runtime, context, on_hand=2)
    planned = await typed.json("migrate", "plan", context.slug, "--to", "schema", "--cell", SECOND_CELL)
    assert planned["objections"] == []
    assert planned["target"] == {"cell": SECOND_CELL, "tier": "schema", "schema_name": f"t_{context.id.hex}"}
    started = await typed.json(
        "migrate", "start", context.slug, "--to", "schema", "--cell", SECOND_CELL, "--retention", "1h"
    )
    assert (started["phase"], started["from"]["tier"], started["to"]["tier"]) == ("pending", "shared", "schema")
    again = await typed("migrate", "start", context.slug, "--to", "dedicated", "--json")
    assert again.code == 1
    assert again.error["code"] in {"move-not-possible", "move-under-way"}
    async with movers.keeping():
        watched = await typed("migrate", "watch", context.slug, "--json")
        lines = [json.loads(line) for line in watched.out.splitlines()]
        assert lines[-1]["phase"] == "retaining"
        assert lines[-1]["write_block_ms"] > 0
        assert {"copied", "verified", "flipped"} <= {line.get("what") for line in lines}
        compared = await typed.json("migrate", "verify", started["id"][:13])
        assert compared["equal"] is True
        refused = await typed("migrate", "cancel", context.slug, "--json")
        assert refused.error["code"] == "wish-refused"
        assert "rollback" in refused.error["detail"]
        await typed.json("migrate", "complete", context.slug)
        move = await movers.desk.find(context.slug)
        await movers.until(move, Phase.COMPLETED)
    status = await typed.json("migrate", "status", context.slug)
    assert status["phase"] == "completed"
    assert status["tables"]["product"]["rows"] == 2
    listed = await typed.json("migrate", "list", "--tenant", context.slug)
    assert [each["id"] for each in listed["moves"]] == [started["id"]]
    assert (await typed.json("migrate", "reap"))["reaped"] == []
    assert (await typed("migrate", "status", "nobody")).code == 1
    # A variable that was not set names no move, and not the newest.
    for wish in ("cutover", "rollback", "complete", "cancel", "retry", "accept-loss"):
        assert (await typed("migrate", wish, "", "--json")).error["code"] == "unknown-move", wish


@pytest.mark.parametrize(
    "words",
    [
        ("--to", "schema", "--server", SECOND_SERVER),
        ("--to", "dedicated", "--cell", SECOND_CELL),
        ("--to", "schema", "--retention", "31d"),
        ("--to", "schema", "--retention", "99999999999d"),
    ],
)
async def test_what_would_be_passed_over_is_refused(
    typed: Command, movers: Movers, mover_tenant: Tenantry, words: tuple[str, ...]
) -> None:
    context = await mover_tenant(Tier.SHARED)
    said = await typed("migrate", "start", context.slug, *words, "--json")
    assert (said.code, said.error["code"]) == (1, "invalid-input")
    assert await movers.desk.moves.newest(slug=context.slug) == []


async def test_a_move_by_the_staff_api(movers: Movers, mover_tenant: Tenantry) -> None:
    context = await mover_tenant(Tier.SHARED)
    app = create_app(movers.runtime)
    async with client_of(app, "console.localhost", token=token_for_staff(movers.runtime.tokens)) as staff:
        asked = {"tenant": context.slug, "to": "schema", "retention_s": 0}
        planned = await staff.post("/staff/v1/migrations/plan", json=asked)
        assert (planned.status_code, planned.json()["objections"]) == (200, [])
        started = await staff.post("/staff/v1/migrations", json=asked)
        assert started.status_code == 202
        path = f"/staff/v1/migrations/{started.json()['id']}"
        await movers.work(await movers.desk.find(context.slug))
        assert (await staff.get(path)).json()["phase"] == "completed"
        live = await staff.get(f"{path}/events")
        assert "event: move" in live.text
        assert "event: status" in live.text
        audit = (await staff.get(f"{path}/audit")).json()["items"]
        assert [each["phase"] for each in audit][-1] == "completed"
        assert audit[0]["actor"] == "staff:staff@tests"
        listed = await staff.get("/staff/v1/migrations", params={"limit": 1})
        assert listed.json()["items"][0]["id"] == started.json()["id"]
        late = await staff.post(f"{path}/rollback")
        assert (late.status_code, late.json()["code"]) == (409, "wish-refused")
        nothing_lost = await staff.get(f"{path}/loss")
        assert (nothing_lost.status_code, nothing_lost.json()) == (200, None)
        assert (await staff.post(f"{path}/accept-loss")).json()["code"] == "wish-refused"
    token = token_for(movers.runtime.tokens, context)
    async with client_of(app, f"{context.slug}.localhost", token=token) as tenant:
        assert (await tenant.get("/staff/v1/migrations")).status_code in {403, 404}
