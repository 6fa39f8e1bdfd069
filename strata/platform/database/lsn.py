"""Positions in PostgreSQL's write-ahead log: integers here, so that they compare; `16/B374D848` on the wire."""

from __future__ import annotations

from typing import NewType

Lsn = NewType("Lsn", int)

NOWHERE = Lsn(0)


def parse_lsn(text: str) -> Lsn:
    high, separator, low = text.partition("/")
    if not separator:
        message = f"{text!r} is no position in a write-ahead log: two hexadecimal numbers with a slash between"
        raise ValueError(message)
    return Lsn((int(high, 16) << 32) | int(low, 16))


def format_lsn(lsn: Lsn) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
