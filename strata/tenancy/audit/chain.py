"""Checking a chain without the database that made it: by what was exported, or by rows as they are read.

digest = SHA-256(digest of the row before, 32 zero bytes for the first, followed by the row as canonical JSON in UTF-8).
Canonical JSON: the members of `ChainedEntry` but the two digests, keys by code point, no white space, text escaped no more
than JSON demands, `at` in UTC with six digits, numbers as they are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterable, Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import msgspec

from strata.platform.errors import ConflictError

FIRST = bytes(32)


class ChainedEntry(msgspec.Struct, frozen=True):
    sequence: int
    id: UUID
    at: datetime
    actor: str
    action: str
    subject: str
    tenant_id: UUID | None
    source: str | None
    authentication: str | None
    request: str | None
    detail: str
    """JSON as the database spells it: a number that went through a float would be another one."""
    previous: bytes
    digest: bytes

    def computed(self) -> bytes:
        return hashlib.sha256(self.previous + self.canonical().encode()).digest()

    def canonical(self) -> str:
        return _spelt(self._members())

    def line(self) -> str:
        """As it is exported: what is hashed, and the two digests in hexadecimal."""
        return _spelt({**self._members(), "previous": self.previous.hex(), "digest": self.digest.hex()})

    def _members(self) -> dict[str, object]:
        return {
            "action": self.action,
            "actor": self.actor,
            "at": f"{self.at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
            "authentication": self.authentication,
            "detail": json.loads(self.detail, parse_float=Decimal),
            "id": str(self.id),
            "request": self.request,
            "sequence": self.sequence,
            "source": self.source,
            "subject": self.subject,
            "tenant_id": None if self.tenant_id is None else str(self.tenant_id),
        }


def _spelt(value: object) -> str:
    match value:
        case dict():
            return "{" + ",".join(f"{_spelt(key)}:{_spelt(value[key])}" for key in sorted(value)) + "}"
        case list():
            return "[" + ",".join(map(_spelt, value)) + "]"
        case Decimal():
            return format(value, "f")
        case _:
            return json.dumps(value, ensure_ascii=False)


class Flaw(StrEnum):
    MISSING = "missing"
    """A number of the sequence has no row, or the newest rows are gone, which an anchor remembers."""
    INSERTED = "inserted"
    """A number has more than one row, or a row hashes another predecessor than the one before it."""
    CHANGED = "changed"
    """The row's own digest is not that of its content, or not the one that was anchored."""


class Finding(msgspec.Struct, frozen=True):
    sequence: int
    flaw: Flaw
    sentence: str


class Anchor(msgspec.Struct, frozen=True):
    """How a chain stood at one time, kept elsewhere: in the catalog."""

    sequence: int
    digest: bytes


class Verification(msgspec.Struct, frozen=True):
    entries: int
    anchors: int
    head: str | None
    """The newest row's digest: written down elsewhere, it tells later whether rows were cut off."""
    findings: list[Finding]

    @property
    def sound(self) -> bool:
        return not self.findings


class ChainBrokenError(ConflictError):
    code = "audit-broken"
    title = "Audit altered"

    def __init__(self, of: str, found: Verification) -> None:
        first = found.findings[0]
        more = f" ({len(found.findings) - 1} more findings)" if len(found.findings) > 1 else ""
        super().__init__(
            f"The audit of {of} is not what was written: {first.sentence}{more}. Keep the database as it is, and compare "
            "with a backup or an export of before.",
            extra={"findings": [msgspec.to_builtins(each) for each in found.findings]},
        )
        self.found = found


class Verifier:
    """Takes the rows by sequence, the oldest first, in one pass of constant memory."""

    def __init__(self, anchors: Iterable[Anchor] = ()) -> None:
        self._anchors = {anchor.sequence: anchor.digest for anchor in anchors}
        self._findings: list[Finding] = []
        self._entries = 0
        self._last = 0
        self._head = FIRST

    def take(self, entry: ChainedEntry) -> None:
        self._entries += 1
        for finding in self._flaws(entry):
            self._findings.append(finding)
        self._last = max(self._last, entry.sequence)
        self._head = entry.digest

    async def take_all(self, entries: AsyncIterable[ChainedEntry]) -> None:
        async for entry in entries:
            self.take(entry)

    def _flaws(self, entry: ChainedEntry) -> Iterator[Finding]:
        number = entry.sequence
        if number > self._last + 1:
            first, last = self._last + 1, number - 1
            which = f"entry {first} is missing" if first == last else f"entries {first} to {last} are missing"
            yield Finding(first, Flaw.MISSING, which)
        elif number <= self._last:
            yield Finding(number, Flaw.INSERTED, f"entry {number} is there more than once")
        elif entry.previous != self._head:
            yield Finding(number, Flaw.INSERTED, f"entry {number} does not follow the entry before it")
        if entry.computed() != entry.digest:
            yield Finding(number, Flaw.CHANGED, f"entry {number} was changed ({entry.action} of {entry.subject})")
        elif self._anchors.get(number, entry.digest) != entry.digest:
            yield Finding(number, Flaw.CHANGED, f"entry {number} is not the one that was anchored in the catalog")

    def result(self, *, strangers: int = 0) -> Verification:
        """`strangers`: rows that no link of the chain leads to."""
        findings = list(self._findings)
        if strangers:
            findings.append(Finding(self._last + 1, Flaw.INSERTED, f"{strangers} entries stand outside of the chain"))
        newest = max(self._anchors, default=0)
        if newest > self._last:
            findings.append(
                Finding(self._last + 1, Flaw.MISSING, f"entries {self._last + 1} to {newest} are missing at the end")
            )
        head = self._head.hex() if self._entries else None
        return Verification(self._entries, len(self._anchors), head, findings)
