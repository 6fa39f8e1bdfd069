"""The runbook, the alerts and the metrics speak of the same things, and every command in the runbook can be typed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from strata.migrator.phases import Phase
from strata.migrator.watching import MoveWatch
from strata.platform.settings import MigratorSettings
from strata.tenancy.model import Tier
from tests.builders.command import Command, environment_for
from tests.builders.moving import Movers
from tests.builders.platform import FIRST_CELL, FIRST_SERVER, SECOND_CELL, Platform, Tenantry, admin_of

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/strata-moves.rules.yml"
RULE_TESTS = ROOT / "deploy/prometheus/strata-moves.test.yml"
RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))
_TYPED = [line.strip() for line in RUNBOOK.splitlines() if line.startswith("    ")]
COMMANDS = sorted({line.partition("#")[0].strip() for line in _TYPED if line.startswith("strata ")})
STATEMENTS = sorted({line for line in _TYPED if line.startswith("SELECT")})
# Run until they are stopped; tests/integration/cli and tests/migrator have processes of them.
ENDLESS = {"strata worker"}

pytestmark = pytest.mark.timeout(300, func_only=True)


@pytest.fixture
def typed(moving_platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for name, value in environment_for(moving_platform).items():
        monkeypatch.setenv(name, value)
    return Command(capsys)


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == ALERTS
    anchors = re.findall(r"runbook: docs/runbook\.md#(\w+)", RULES.read_text(encoding="utf-8"))
    assert anchors == [alert.lower() for alert in ALERTS]


def test_every_alert_is_seen_to_fire() -> None:
    fires = re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n\s+- exp_labels", RULE_TESTS.read_text(encoding="utf-8"))
    assert set(fires) == set(ALERTS)


@pytest.mark.parametrize("words", [("check", "rules", RULES), ("test", "rules", RULE_TESTS)], ids=["check", "test"])
def test_prometheus_takes_the_rules_and_they_fire_when_they_should(words: tuple[str, str, Path]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on PATH: apt-get install prometheus")
    done = subprocess.run([promtool, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_every_metric_in_an_alert_is_exposed(movers: Movers) -> None:
    runtime = movers.runtime
    watch = MoveWatch(runtime.catalog_engine, runtime.registry, MigratorSettings())
    exposed = set(re.findall(r"^# TYPE (\w+)", (await watch.exposition()).decode(), re.MULTILINE))
    expressions = re.sub(
        r"^\s*- alert.*|^\s*annotations.*|^\s*(summary|runbook).*", "", RULES.read_text(encoding="utf-8")
    )
    named = {name.removesuffix("_bucket") for name in re.findall(r"\b(strata_\w+)", expressions)}
    assert named
    assert named <= exposed


# A deletion is confirmed by a person, or by --yes, which no runbook should put into anybody's hand.
_REFUSALS = {"wish-refused", "deletion-unconfirmed"}


async def test_every_command_can_be_typed(typed: Command, movers: Movers, mover_tenant: Tenantry) -> None:
    """On a move that is kept reversible and a wave that has ended: whatever a command refuses, it refuses in a sentence."""
    context = await mover_tenant(Tier.SHARED)
    move = await movers.start(context, Tier.SCHEMA, hold=True)
    wave = await typed.json(
        "migrate", "wave", "--to", "shared", "--from-cell", FIRST_CELL, "--cell", FIRST_CELL, "--window", "03:00-03:01"
    )
    await typed.json("migrate", "waves", "pause", wave["id"])
    # Those that ask for the end of something come last.
    last = ("cancel", "complete", "rollback")
    for command in sorted(COMMANDS, key=lambda each: each.split()[-2] in last):
        if command in ENDLESS or command == "strata migrate watch ID":
            continue
        name = wave["id"] if " waves " in command else str(move.id)
        # Where the runbook has another address read, it is the registered one here: the server has not been failed over.
        line = (
            command.partition(" - <")[0]
            .replace("ID", name)
            .replace("SERVER", FIRST_SERVER)
            .replace("SLUG", context.slug)
        )
        said = await typed(*line.split()[1:], "--json")
        assert said.code in {0, 1}, (command, said.err)
        if said.code == 1 and "doctor" not in command:
            assert said.error["code"] in _REFUSALS, (command, said.error)
    assert (await movers.work(move)).phase is Phase.CANCELLED
    watched = await typed("migrate", "watch", str(move.id), "--json")
    assert (watched.code, "cancelled" in watched.out) == (0, True)
    assert (await movers.runtime.waves.waves.find(wave["id"])).state == "cancelled"


async def test_every_statement_can_be_typed(movers: Movers) -> None:
    for cell in (FIRST_CELL, SECOND_CELL):
        async with admin_of(movers.runtime, cell) as admin:
            await admin.execute("SELECT pg_create_logical_replication_slot('strata_left_behind', 'pgoutput')")
            for statement in STATEMENTS:
                await admin.fetch(statement.replace("SLOT", "strata_left_behind"))
            left = await admin.fetchval(
                "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'strata_left_behind'"
            )
            assert left == 0, "what the runbook drops by hand is gone"
