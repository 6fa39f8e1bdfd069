"""What passes by itself is tried again; nobody is asked about a connection that broke."""

from __future__ import annotations

import asyncpg
import psycopg
import pytest

from strata.migrator.errors import CopyAgainError, SupersededError
from strata.migrator.replication_errors import SchemaChangedError
from strata.migrator.verdicts import Verdict, verdict_on
from strata.platform.ids import new_id


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ConnectionResetError(), Verdict.AGAIN),
        (TimeoutError(), Verdict.AGAIN),
        (asyncpg.InterfaceError("connection is closed"), Verdict.AGAIN),
        (asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"), Verdict.AGAIN),
        (asyncpg.AdminShutdownError("terminating connection"), Verdict.AGAIN),
        (asyncpg.LockNotAvailableError("lock timeout"), Verdict.AGAIN),
        (psycopg.OperationalError("the connection is lost"), Verdict.AGAIN),
        (CopyAgainError("its slot is gone"), Verdict.COPY_AGAIN),
        (SupersededError(new_id(), 3), Verdict.SUPERSEDED),
        (SchemaChangedError("t", "was altered"), Verdict.ASK),
        (asyncpg.UndefinedTableError("no such table"), Verdict.ASK),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.name,
)
def test_the_verdict_on(error: Exception, verdict: Verdict) -> None:
    assert verdict_on(error) is verdict
