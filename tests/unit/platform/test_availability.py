from __future__ import annotations

import asyncpg
import pytest

from strata.platform.database.availability import is_unreachable


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (asyncpg.AdminShutdownError("x"), True),
        (asyncpg.CrashShutdownError("x"), True),
        (asyncpg.CannotConnectNowError("x"), True),
        (asyncpg.ConnectionDoesNotExistError("x"), True),
        (asyncpg.TooManyConnectionsError("x"), True),
        (ConnectionRefusedError("x"), True),
        (asyncpg.UniqueViolationError("x"), False),
        (asyncpg.QueryCanceledError("x"), False),
        (asyncpg.ObjectInUseError("x"), False),
        (ValueError("x"), False),
    ],
)
def test_a_server_that_goes_away_is_told_from_one_that_refuses(error: Exception, gone: bool) -> None:
    assert is_unreachable(error) is gone
