"""Processes tell each other, over Redis, of a tenant that is about to arrive in another home, and that its fence is open.

Whoever works for the tenant opens connections to the new home before the cut-over, and those who wait at the fence look
the moment it opens. Both only make a cut-over shorter: without Redis, connections are opened when they are needed, and
who waits looks every few milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from strata.platform.errors import StrataError
from strata.platform.ids import new_id
from strata.platform.redis_link import RedisDownError, RedisLink
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Placement

log = structlog.get_logger(__name__)

CHANNEL = "strata:arrivals"
_ANSWERS_KEPT_S = 60
_LOOK_EVERY_S = 0.02


class Coming(msgspec.Struct, frozen=True, tag=True):
    """The tenant will soon live there. Its epoch is not known yet; the one it has now stands in its place."""

    question: UUID
    tenant_id: UUID
    placement: Placement


class Opened(msgspec.Struct, frozen=True, tag=True):
    """The tenant's fence lets people in, here or there."""

    tenant_id: UUID


class Arrivals:
    """One per process; made before `link.start()`, closed before `link.close()`."""

    def __init__(
        self,
        link: RedisLink,
        held: Callable[[UUID], TenantContext | None],
        make_ready: Callable[[TenantContext, Placement], Awaitable[None]],
        look_again: Callable[[UUID], None],
    ) -> None:
        """`held`: the tenant's context, if this process has worked for it lately."""
        self._link = link
        self._held = held
        self._make_ready = make_ready
        self._look_again = look_again
        self._preparing: set[asyncio.Task[None]] = set()
        link.listen(CHANNEL, self._hear)

    async def close(self) -> None:
        for task in self._preparing:
            task.cancel()
        await asyncio.gather(*self._preparing, return_exceptions=True)

    async def expect(self, tenant_id: UUID, placement: Placement, within_s: float) -> None:
        """Ask every process to make ready; returns when all have, or after that time. Fails nobody."""
        question = Coming(new_id(), tenant_id, placement)
        key = _answers(question)
        with contextlib.suppress(RedisDownError, TimeoutError):
            asked = await self._publish(question)
            async with asyncio.timeout(within_s):
                while await self._answered(key) < asked:  # noqa: ASYNC110 - by others
                    await asyncio.sleep(_LOOK_EVERY_S)

    async def opened(self, tenant_id: UUID) -> None:
        self._look_again(tenant_id)
        with contextlib.suppress(RedisDownError):
            await self._publish(Opened(tenant_id))

    async def _answered(self, key: str) -> int:
        try:
            return int(await self._link.run(lambda client: client.get(key)) or 0)
        except RedisDownError:
            # An answer that is late once is no reason to shut the fence before the others are ready.
            return 0

    async def _publish(self, message: Coming | Opened) -> int:
        heard: int = await self._link.run(lambda client: client.publish(CHANNEL, _ENCODER.encode(message)))
        return heard

    def _hear(self, message: bytes) -> None:
        try:
            said = _DECODER.decode(message)
        except msgspec.DecodeError as error:
            # Of another release: it has lost nothing but some milliseconds.
            log.info("arrivals.unreadable", error=str(error))
            return
        match said:
            case Opened(tenant_id=tenant_id):
                self._look_again(tenant_id)
            case Coming():
                task = asyncio.create_task(self._prepare(said), name=f"arrival-{said.tenant_id}")
                self._preparing.add(task)
                task.add_done_callback(self._preparing.discard)

    async def _prepare(self, coming: Coming) -> None:
        context = self._held(coming.tenant_id)
        try:
            if context is not None:
                await self._make_ready(context, coming.placement)
        except (StrataError, SQLAlchemyError, OSError) as error:
            log.info("arrivals.not_ready", tenant_id=str(coming.tenant_id), error=type(error).__name__)
        key = _answers(coming)
        with contextlib.suppress(RedisDownError):
            await self._link.run(lambda client: client.incr(key))
            await self._link.run(lambda client: client.expire(key, _ANSWERS_KEPT_S))


def _answers(question: Coming) -> str:
    return f"strata:arrivals:{question.question}"


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Coming | Opened)
