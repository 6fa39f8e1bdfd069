"""Waves by command line and by staff API: the same desk, the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strata.app import create_app
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.command import Command, environment_for
from tests.builders.http import client_of, token_for, token_for_staff
from tests.builders.moving import Movers
from tests.builders.platform import SECOND_CELL, SECOND_SERVER, Platform, Tenantry

NIGHT = ("--window", "01:00-05:00", "--time-zone", "Asia/Bangkok")


@pytest.fixture
def typed(
    moving_platform: Platform,
    moving_runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    del moving_runtime  # The platform must stand, whichever test comes first.
    for name, value in environment_for(moving_platform).items():
        monkeypatch.setenv(name, value)
    return Command(capsys)


@pytest.fixture
async def there(mover_tenant: Tenantry) -> TenantContext:
    """It is where the waves of these tests go, so that there is nothing to do."""
    return await mover_tenant(Tier.SHARED, cell=SECOND_CELL)


async def test_a_wave_by_the_command_line(typed: Command, movers: Movers, there: TenantContext, tmp_path: Path) -> None:
    file = tmp_path / "tenants.txt"
    file.write_text(f"# tonight\n{there.slug}  # twice, moved once\n\n{there.slug}\n")
    words = ("migrate", "wave", "--to", "shared", "--cell", SECOND_CELL, "--file", file)
    [candidate] = (await typed.json(*words, "--dry-run"))["tenants"]
    assert (candidate["slug"], candidate["to_cell"]) == (there.slug, SECOND_CELL)
    started = await typed.json(*words, *NIGHT, "--parallel", "2", "--max-failures", "3")
    assert started["counts"]["waiting"] == 1
    assert (started["parallel"], started["max_failures"], started["retention_s"]) == (2, 3, 0)
    assert started["window"] == {"begins": "01:00:00", "ends": "05:00:00", "zone": "Asia/Bangkok"}
    wave = started["id"]
    assert (await typed.json("migrate", "waves", "pause", wave))["state"] == "paused"
    refused = await typed("migrate", "waves", "pause", wave, "--json")
    assert (refused.code, refused.error["code"]) == (1, "wish-refused")
    assert (await typed.json("migrate", "waves", "resume", wave[:13]))["state"] == "running"
    assert (await typed.json("migrate", "waves", "cancel", wave))["state"] == "cancelled"
    assert wave in {each["id"] for each in (await typed.json("migrate", "waves"))["waves"]}
    assert wave not in {each["id"] for each in (await typed.json("migrate", "waves", "list", "--unfinished"))["waves"]}

    second = await typed.json(*words)
    async with movers.driving():
        watched = await typed("migrate", "waves", "watch", second["id"], "--json")
    assert watched.code == 0
    assert json.loads(watched.out.splitlines()[-1])["state"] == "finished"
    shown = await typed.json("migrate", "waves", "show", second["id"])
    assert [each["outcome"] for each in shown["tenants"]] == ["skipped"]
    said = await typed("migrate", "waves", "show", second["id"])
    assert there.slug in said.out
    assert "already" in said.out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--to", "shared"), "invalid-input"),
        (("--to", "shared", "--plan", "business", "--from-cell", "cell-1"), "invalid-input"),
        (("--to", "shared", "--plan", "no-such"), "invalid-input"),
        (("--to", "shared", "--from-cell", "no-such"), "unknown-cell"),
        (("--to", "shared", "--from-cell", "cell-1", "--cell", "no-such"), "unknown-cell"),
        (("--to", "dedicated", "--from-cell", "cell-1", "--server", "no-such"), "unknown-server"),
        (("--to", "shared", "--file", "no-such.txt"), "invalid-input"),
        (("--to", "shared", "--from-cell", "cell-1", "--server", SECOND_SERVER), "invalid-input"),
        (("--to", "dedicated", "--from-cell", "cell-1", "--cell", SECOND_CELL), "invalid-input"),
        (("--to", "shared", "--from-cell", "cell-1", "--retention", "31d"), "invalid-input"),
        (("--to", "shared", "--from-cell", "cell-1", "--retention", "soon"), "usage"),
        (("--to", "shared", "--from-cell", "cell-1", "--parallel", "0"), "usage"),
        (("--to", "shared", "--from-cell", "cell-1", "--max-failures", "9999999999"), "usage"),
        (("--to", "shared", "--from-cell", "cell-1", "--window", "1-5"), "no-window"),
        (("--to", "shared", "--from-cell", "cell-1", "--window", "01:00-05:00", "--time-zone", "Mars"), "no-window"),
    ],
)
async def test_what_is_no_wave_is_said_in_a_sentence(typed: Command, words: tuple[str, ...], code: str) -> None:
    said = await typed("migrate", "wave", *words, "--dry-run", "--json")
    assert (said.code, said.error["code"]) == (2 if code == "usage" else 1, code)
    assert (await typed("migrate", "waves", "show", "no-such", "--json")).error["code"] == "unknown-wave"


async def test_a_list_is_read_whatever_is_in_it(typed: Command, there: TenantContext, tmp_path: Path) -> None:
    file = tmp_path / "tenants.txt"
    words = ("migrate", "wave", "--to", "shared", "--file", file, "--json")
    # More than a statement may have parameters.
    file.write_text("\n".join([there.slug, *(f"nobody-{number}" for number in range(40_000))]))
    said = await typed(*words)
    assert (said.code, said.error["code"]) == (1, "unknown-tenants")
    assert "and 39990 more" in said.error["detail"]
    for content in (f"{there.slug}\n\0\n".encode(), b"\xff\xfe", b"\n# nobody\n"):
        file.write_bytes(content)
        said = await typed(*words)
        assert said.code == 1, content
        assert said.error["code"] in {"invalid-input", "unknown-tenants"}, content
    file.write_bytes(f"\ufeff{there.slug}\r\n".encode())
    assert [each["slug"] for each in (await typed.json(*words[:-1], "--dry-run"))["tenants"]] == [there.slug]


async def test_what_changes_a_wave_needs_its_name(typed: Command, there: TenantContext, tmp_path: Path) -> None:
    file = tmp_path / "tenants.txt"
    file.write_text(there.slug)
    words = ("migrate", "wave", "--to", "shared", "--cell", SECOND_CELL, "--file", file, *NIGHT)
    waves = [(await typed.json(*words))["id"] for _ in range(2)]
    for wish in ("pause", "resume", "retry", "cancel"):
        # A variable that was not set; what every id of these decades begins with.
        for name, code in (("", "unknown-wave"), ("-", "unknown-wave"), ("0", "ambiguous-wave")):
            said = await typed("migrate", "waves", wish, name, "--json")
            assert (said.code, said.error["code"]) == (1, code), (wish, name)
    assert (await typed.json("migrate", "waves", "show"))["id"] == waves[1]
    for wave in waves:
        assert (await typed.json("migrate", "waves", "show", wave))["state"] == "running"
        await typed.json("migrate", "waves", "cancel", wave)


async def test_a_wave_by_the_staff_api(movers: Movers, there: TenantContext) -> None:
    app = create_app(movers.runtime)
    async with client_of(app, "console.localhost", token=token_for_staff(movers.runtime.tokens)) as staff:
        order = {"to": "shared", "cell": SECOND_CELL, "tenants": [there.slug], "window": "22:00-04:00"}
        assert [each["slug"] for each in (await staff.post("/staff/v1/waves/plan", json=order)).json()["items"]] == [
            there.slug
        ]
        for wrong in ({"parallel": 0}, {"window": "22-4"}, {"plan": "business"}, {"speed": 1}):
            assert (await staff.post("/staff/v1/waves", json=order | wrong)).status_code in {400, 422}, wrong
        started = await staff.post("/staff/v1/waves", json=order)
        assert started.status_code == 202
        path = f"/staff/v1/waves/{started.json()['id']}"
        assert started.json()["started_by"] == "staff:staff@tests"
        [member] = (await staff.get(f"{path}/tenants")).json()["items"]
        assert (member["tenant"], member["outcome"]) == (there.slug, "waiting")
        assert (await staff.post(f"{path}/pause")).json()["state"] == "paused"
        assert (await staff.post(f"{path}/pause")).status_code == 409
        assert (await staff.post(f"{path}/cancel")).json()["counts"]["dropped"] == 1
        assert (await staff.get(path)).json()["state"] == "cancelled"
        listed = (await staff.get("/staff/v1/waves", params={"limit": 1})).json()
        assert listed["items"][0]["id"] == started.json()["id"]
        unknown = await staff.get("/staff/v1/waves/01a22358-15b1-753f-b1b1-2261e5717cdf")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-wave")
    token = token_for(movers.runtime.tokens, there)
    async with client_of(app, f"{there.slug}.localhost", token=token) as tenant:
        assert (await tenant.get("/staff/v1/waves")).status_code in {403, 404}
