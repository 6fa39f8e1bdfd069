"""On whose behalf the current task works. Set by routing, by the commands and by the worker; read when something is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

SYSTEM = "system"
"""The actor when nobody in particular asked: sweeping, seeding, upgrading."""


class Origin(msgspec.Struct, frozen=True):
    actor: str = SYSTEM
    source: str | None = None
    """From where: an address, a host's name."""
    authentication: str | None = None
    """How the actor proved who they are: the kind of credential and its id, never the credential."""
    request: str | None = None
    """The id under which the logs have the request."""


_NOBODY = Origin()
_CURRENT: ContextVar[Callable[[], Origin] | None] = ContextVar("strata_origin", default=None)


def current_origin() -> Origin:
    told = _CURRENT.get()
    return _NOBODY if told is None else told()


@contextmanager
def acting_for(origin: Callable[[], Origin]) -> Iterator[None]:
    """`origin` is asked only if something is recorded: most requests change nothing."""
    token = _CURRENT.set(origin)
    try:
        yield
    finally:
        _CURRENT.reset(token)
