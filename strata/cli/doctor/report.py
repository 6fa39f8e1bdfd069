"""A check and its verdict."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any

import msgspec

from strata.cli.failures import named


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


class Check(msgspec.Struct, frozen=True):
    name: str
    verdict: Verdict
    found: str
    todo: str = ""
    """One sentence; empty when there is nothing to do."""


class Report:
    def __init__(self, show: Callable[[Check], None]) -> None:
        self.checks: list[Check] = []
        self._show = show

    @property
    def failed(self) -> bool:
        return any(check.verdict is Verdict.FAILURE for check in self.checks)

    def ok(self, name: str, found: str) -> None:
        self._add(Check(name, Verdict.OK, found))

    def warning(self, name: str, found: str, todo: str) -> None:
        self._add(Check(name, Verdict.WARNING, found, todo))

    def failure(self, name: str, found: str, todo: str) -> None:
        self._add(Check(name, Verdict.FAILURE, found, todo))

    def _add(self, check: Check) -> None:
        self.checks.append(check)
        self._show(check)

    async def examine(self, name: str, examination: Coroutine[Any, Any, None]) -> bool:
        """Run one; what it dies of is its verdict. Whether it came to its end."""
        async with self.surviving(name) as survived:
            await examination
            survived.append(True)
        return bool(survived)

    @asynccontextmanager
    async def surviving(self, name: str) -> AsyncIterator[list[bool]]:
        try:
            yield []
        except Exception as error:  # noqa: BLE001 - whatever a check dies of is its verdict, and the next one runs
            failure = named(error)
            if failure is None:
                self.failure(name, f"{type(error).__name__}: {error}", "This was not foreseen: report it.")
            else:
                self.failure(name, failure.title, failure.detail)
