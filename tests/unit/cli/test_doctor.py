"""What the doctor says of a server, by what the server says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from strata.cli.doctor.cells import judge_server
from strata.cli.doctor.report import Report, Verdict

FIT = {
    "version": 180001,
    "shown": "18.1",
    "wal_level": "logical",
    "standby": False,
    "prepared": 0,
    "slots": 20,
    "senders": 20,
    "connections": 100,
    "entitled": True,
}


@pytest.mark.parametrize(
    ("spoilt", "verdict", "said"),
    [
        ({}, Verdict.OK, ""),
        ({"version": 140010}, Verdict.FAILURE, "PostgreSQL 15"),
        ({"standby": True}, Verdict.FAILURE, "primary"),
        ({"wal_level": "replica"}, Verdict.FAILURE, "logical"),
        ({"entitled": False}, Verdict.FAILURE, "superuser"),
        ({"slots": 3}, Verdict.WARNING, "max_replication_slots"),
        ({"prepared": 10}, Verdict.WARNING, "lock for ever"),
    ],
)
def test_a_server_is_judged(spoilt: dict[str, Any], verdict: Verdict, said: str) -> None:
    report = Report(lambda _: None)
    judge_server(report, "server one", {**FIT, **spoilt})
    [check] = report.checks
    assert check.verdict is verdict
    assert said in check.todo
