"""Slow statements by tenant, as texts that say nothing of what was asked for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from uuid import UUID

import msgspec

SLOW_NS = 20_000_000
_MOST = 2000
_LITERAL = re.compile(r"'(?:[^']|'')*'|(?<![\w$.])\d+(?:\.\d+)?\b")
_PARAMETER = re.compile(r"\$(\d+)")
_SPACE = re.compile(r"\s+")


class Slow(msgspec.Struct):
    statement: str
    calls: int = 0
    total_ns: int = 0
    rows: int = 0
    slowest_ns: int = 0


def without_literals(statement: str) -> str:
    """Each literal as one more parameter, so that the text still has a plan."""
    last = max((int(number) for number in _PARAMETER.findall(statement)), default=0)

    def parameter(_literal: re.Match[str]) -> str:
        nonlocal last
        last += 1
        return f"${last}"

    return _SPACE.sub(" ", _LITERAL.sub(parameter, statement)).strip()


def fingerprint(statement: str) -> str:
    """Of a text without literals: the same for any number of parameters in a list."""
    flattened = re.sub(r"\$\d+", "$", statement)
    flattened = re.sub(r"\$(?:::[\w ]+)?(?:, \$(?:::[\w ]+)?)+", "$, …", flattened)
    return hashlib.blake2b(flattened.encode(), digest_size=8).hexdigest()


class SlowStatements:
    """Of this process, until they are taken."""

    def __init__(self) -> None:
        self._held: dict[tuple[UUID, str], Slow] = {}

    def note(self, tenant_id: UUID, by_statement: dict[str, list[int]]) -> None:
        """Calls, nanoseconds, rows and the longest of each statement of a transaction; only slow ones are kept."""
        for statement, (calls, total_ns, rows, slowest_ns) in by_statement.items():
            if slowest_ns < SLOW_NS:
                continue
            text = without_literals(statement)
            key = (tenant_id, fingerprint(text))
            held = self._held.get(key)
            if held is None:
                if len(self._held) >= _MOST:
                    return
                held = self._held[key] = Slow(text)
            held.calls += calls
            held.total_ns += total_ns
            held.rows += rows
            held.slowest_ns = max(held.slowest_ns, slowest_ns)

    def take(self) -> Iterable[tuple[tuple[UUID, str], Slow]]:
        taken, self._held = self._held, {}
        return taken.items()
