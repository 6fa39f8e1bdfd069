"""Back ends that fall silent: their processes are halted, and nobody on their connections hears that anything is wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg


class Silence:
    """Of servers whose processes are this machine's and this user's."""

    def __init__(self) -> None:
        self._halted: set[int] = set()

    async def fall(self, admin: asyncpg.Connection, condition: str, *arguments: object) -> None:
        """On those back ends of the database that the condition finds in pg_stat_activity; there must be some."""
        found = await admin.fetch(
            "SELECT pid FROM pg_stat_activity"
            f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND {condition}",
            *arguments,
        )
        assert found, "nobody to be silent"
        for row in found:
            os.kill(row["pid"], signal.SIGSTOP)
            self._halted.add(row["pid"])

    def end(self) -> None:
        while self._halted:
            # One that has gone meanwhile is silent for good.
            with suppress(ProcessLookupError):
                os.kill(self._halted.pop(), signal.SIGCONT)


@contextmanager
def silence() -> Iterator[Silence]:
    made = Silence()
    try:
        yield made
    finally:
        made.end()
