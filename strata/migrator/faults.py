"""Named points in a move at which a test makes something happen; nothing happens unless a test has armed one.

A point stands where two acts that a crash can separate meet. What is armed is `point=action`: `kill` ends this process
as kill -9 does, `stop` halts it as SIGSTOP does, `fail` raises. A test in this process may arm a callable instead.
With `point@TENANT=action` only a move of that tenant's meets it: a worker takes up whatever there is, also what another
test has left.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from enum import StrEnum
from uuid import UUID

import msgspec

Act = Callable[[], Awaitable[None]]


class FaultAction(StrEnum):
    KILL = "kill"
    STOP = "stop"
    FAIL = "fail"


class InjectedError(Exception):
    """Raised by an armed point; not an error that any code expects."""


class _Armed(msgspec.Struct, frozen=True):
    act: Act
    tenant: UUID | None


_armed: dict[str, _Armed] = {}
_works_for: ContextVar[UUID | None] = ContextVar("the tenant whose move this task works on", default=None)


def works_for(tenant_id: UUID) -> None:
    """Said by whoever begins to work on a move, for the task and those that it starts."""
    _works_for.set(tenant_id)


async def reached(point: str) -> None:
    armed = _armed.get(point)
    if armed is not None and armed.tenant in {None, _works_for.get()}:
        del _armed[point]
        await armed.act()


def arm(point: str, act: Act, tenant: UUID | None = None) -> None:
    """Once: the next time that the point is reached, by a move of the tenant's if one is named."""
    _armed[point] = _Armed(act, tenant)


def arm_from(described: str) -> None:
    """`point=action` or `point@TENANT=action`, several joined by commas: STRATA_MIGRATOR__FAULTS, which is refused outside tests."""
    for each in filter(None, described.split(",")):
        place, _, action = each.partition("=")
        point, _, tenant = place.partition("@")
        arm(point, _ACTS[FaultAction(action)], UUID(tenant) if tenant else None)


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
