"""Named points in a move at which a test makes something happen; nothing happens unless a test has armed one.

A point stands where two acts that a crash can separate meet. What is armed is `point=action`: `kill` ends this process
as kill -9 does, `stop` halts it as SIGSTOP does, `fail` raises. A test in this process may arm a callable instead.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from enum import StrEnum

Act = Callable[[], Awaitable[None]]


class FaultAction(StrEnum):
    KILL = "kill"
    STOP = "stop"
    FAIL = "fail"


class InjectedError(Exception):
    """Raised by an armed point; not an error that any code expects."""


_armed: dict[str, Act] = {}


async def reached(point: str) -> None:
    act = _armed.pop(point, None)
    if act is not None:
        await act()


def arm(point: str, act: Act) -> None:
    """Once: the next time that the point is reached."""
    _armed[point] = act


def arm_from(described: str) -> None:
    """`point=action`, several joined by commas: STRATA_MIGRATOR__FAULTS, which is refused outside tests."""
    for each in filter(None, described.split(",")):
        point, _, action = each.partition("=")
        arm(point, _ACTS[FaultAction(action)])


def disarm() -> None:
    _armed.clear()


async def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


async def _fail() -> None:
    message = "a test asked for this failure"
    raise InjectedError(message)


_ACTS: dict[FaultAction, Act] = {FaultAction.KILL: _kill, FaultAction.STOP: _stop, FaultAction.FAIL: _fail}
