"""The runbook, the alerts and the metrics speak of the same things."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from strata.migrator.watching import MoveWatch
from strata.platform.settings import MigratorSettings
from tests.builders.moving import Movers

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/strata-moves.rules.yml"
RULE_TESTS = ROOT / "deploy/prometheus/strata-moves.test.yml"
RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))

pytestmark = pytest.mark.timeout(300)


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == ALERTS
    anchors = re.findall(r"runbook: docs/runbook\.md#(\w+)", RULES.read_text(encoding="utf-8"))
    assert anchors == [alert.lower() for alert in ALERTS]


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
