"""The back ends of a PostgreSQL server and the memory that is theirs, from /proc. Linux alone, and as root or as the
account the server runs under.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

_FIELD = re.compile(r"^(Pss|Pss_Anon):\s+(\d+) kB$", re.MULTILINE)


class Memory(msgspec.Struct, frozen=True):
    """Of some back ends together; MiB."""

    backends: int
    own_mib: float
    """Anonymous memory: caches of catalogs and plans, and what else a back end keeps for itself."""
    own_median_mib: float
    own_largest_mib: float
    pss_mib: float
    """With each one's part of what they share, which is above all PostgreSQL's buffers."""


def memory(pids: Sequence[int]) -> Memory:
    """One that has ended meanwhile is left out."""
    found = [each for each in map(_smaps, pids) if each]
    own = [each["Pss_Anon"] / 1024 for each in found]
    return Memory(
        len(found),
        round(sum(own), 1),
        round(median(own), 2) if own else 0.0,
        round(max(own, default=0.0), 2),
        round(sum(each["Pss"] for each in found) / 1024, 1),
    )


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    return round(int(found.group(1)) / 1024, 1) if found else 0.0


def _smaps(pid: int) -> dict[str, int]:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: int(kib) for name, kib in _FIELD.findall(text)}
