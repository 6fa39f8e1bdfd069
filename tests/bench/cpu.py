"""Processor time of other processes, from the kernel's own accounts: it tells work from waiting, and is steadier than
latency on a machine that others use too. Linux alone; elsewhere it reads as zero.
"""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")


def busy_ns(root: int) -> int:
    """Nanoseconds on a processor so far, of a process, its threads and all its living descendants."""
    return sum(_own_ns(pid) for pid in [root, *_descendants(root)])


def _own_ns(pid: int) -> int:
    total = 0
    for task in (_PROC / str(pid) / "task").glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for children in (_PROC / str(pid) / "task").glob("*/children"):
        try:
            direct = [int(child) for child in children.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in direct:
            found += [child, *_descendants(child)]
    return found
