"""Waking the relay after a commit, without a round trip in anybody's way.

Rings are gathered and published to Redis at most once every 50 ms by a task beside the requests. A ring may
get lost, with Redis or with the process between commit and publication: the relay looks by itself now and then.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from strata.platform.redis_link import RedisDownError, RedisLink

CHANNEL = "strata:outbox"
_GATHERED_S = 0.05
"""The first ring after a silence goes at once. With 10 ms a hundred movements a second were a hundred publications."""
_SEPARATOR = b"\n"


class Bell:
    """The writers' side."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._rung: set[str] = set()
        self._publishing: asyncio.Task[None] | None = None

    def ring(self, cell: str) -> None:
        """Somebody has written in the cell. Returns at once and never fails."""
        self._rung.add(cell)
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.create_task(self._publish(), name="outbox-bell")

    async def close(self) -> None:
        if self._publishing is not None:
            self._publishing.cancel()
            with suppress(asyncio.CancelledError):
                await self._publishing

    async def _publish(self) -> None:
        while self._rung:
            rung, self._rung = self._rung, set()
            message = _SEPARATOR.join(cell.encode() for cell in rung)
            # Without Redis the relay looks more often.
            with suppress(RedisDownError):
                await self._link.run(lambda redis, message=message: redis.publish(CHANNEL, message))  # type: ignore[misc]
            await asyncio.sleep(_GATHERED_S)


class Ear:
    """The relay's side, on a link of its own: no other process needs to hear this."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._rings: dict[str, asyncio.Event] = {}
        link.listen(CHANNEL, self._hear)
        link.on_up(self._after_deafness)

    @property
    def hears(self) -> bool:
        return self._link.up

    def ring_of(self, cell: str) -> asyncio.Event:
        """Set when somebody may have written in the cell; who waits for it clears it."""
        return self._rings.setdefault(cell, asyncio.Event())

    async def start(self) -> None:
        await self._link.start()

    async def close(self) -> None:
        await self._link.close()

    def _hear(self, message: bytes) -> None:
        for cell in message.split(_SEPARATOR):
            # What cannot be read names no cell. (An error here would end the link to Redis.)
            ring = self._rings.get(cell.decode(errors="replace"))
            if ring is not None:
                ring.set()

    def _after_deafness(self) -> None:
        for ring in self._rings.values():
            ring.set()
