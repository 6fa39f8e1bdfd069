"""Many ask for the same thing at once: one goes to fetch it, all get the answer."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Flight(Generic[V]):
    """One fetch under way. `outdated` is set by whoever learns that its answer may describe the past."""

    __slots__ = ("outdated", "started", "task")

    def __init__(self) -> None:
        self.outdated = False
        self.started = False
        self.task: asyncio.Task[V]


class SingleFlight(Generic[K, V]):
    """Fetches run in tasks of their own: whoever is cancelled while waiting, the others still get the answer."""

    def __init__(self) -> None:
        self._flights: dict[K, Flight[V]] = {}
        self._next: dict[K, Flight[V]] = {}

    async def join(self, key: K, fetch: Callable[[Flight[V]], Awaitable[V]]) -> V:
        """The answer of the flight under way for `key`, or of a new one."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._launch(key, fetch, None)
        return await asyncio.shield(flight.task)

    async def join_next(self, key: K, fetch: Callable[[Flight[V]], Awaitable[V]]) -> V:
        """As `join`, never with a flight that has already read something: the answer is as new as this call."""
        flight = self._next.get(key)
        if flight is None or flight.started:
            flight = self._launch(key, fetch, self._flights.get(key))
        return await asyncio.shield(flight.task)

    def outdate(self, key: K) -> None:
        flight = self._flights.get(key)
        if flight is not None:
            flight.outdated = True

    def outdate_all(self) -> None:
        for flight in self._flights.values():
            flight.outdated = True

    def _launch(self, key: K, fetch: Callable[[Flight[V]], Awaitable[V]], after: Flight[V] | None) -> Flight[V]:
        flight = Flight[V]()

        async def fly() -> V:
            if after is not None:
                await asyncio.wait([after.task])
            flight.started = True
            self._flights[key] = flight
            try:
                return await fetch(flight)
            finally:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                if self._next.get(key) is flight:
                    del self._next[key]

        if after is None:
            self._flights[key] = flight
        self._next[key] = flight
        # An empty context: the fetch serves everybody, and must not log or trace as the request that happened to be first.
        flight.task = asyncio.create_task(fly(), context=contextvars.Context())
        flight.task.add_done_callback(_retrieve)
        return flight


def _retrieve(task: asyncio.Task[Any]) -> None:
    """All who waited may be gone; then nobody is left to take the exception, and asyncio would complain."""
    if not task.cancelled():
        task.exception()
