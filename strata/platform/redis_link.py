"""The one connection a process has to Redis: commands that fail fast, a subscription, and the knowledge of which is alive.

Redis only ever makes things faster here, so nothing waits for it: a command gets `timeout_s`, a failure takes the link
down, and while it is down commands are refused at once. One task owns the way back: it subscribes, learns which Redis
this is, lets the listeners put their caches right (`on_up`), and only then opens the link again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import redis.asyncio
import redis.exceptions
import structlog
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

log = structlog.get_logger(__name__)

T = TypeVar("T")

_FAILURES = (redis.exceptions.RedisError, OSError, TimeoutError)
_TIMEOUTS_BEFORE_DOWN = 3
_HEARTBEAT_S = 1.0
_HEARTBEAT_ANSWER_S = 1.0
_CONNECT_TIMEOUT_S = 1.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


class RedisDownError(Exception):
    """Redis did not answer or is known not to; every caller has a way on without it."""


class RedisLink:
    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._client = redis.asyncio.Redis.from_url(
            url,
            # Retries would make one caller wait several times; coming back is the owner task's business.
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_keepalive=True,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._listeners: dict[bytes, Callable[[bytes], None]] = {}
        self._on_up: list[Callable[[], None]] = []
        self._owner: asyncio.Task[None] | None = None
        self._up = False
        self._lost = asyncio.Event()
        self._settled = asyncio.Event()
        self._timeouts = 0
        self._heard_at = 0.0
        self.run_id = ""
        """Names the running Redis: it differs after a restart or a fail-over, when what it holds may be older than known."""

    @property
    def up(self) -> bool:
        """Commands are worth trying, and whatever was published since the last `on_up` has arrived or soon will."""
        return self._up and time.monotonic() - self._heard_at < _HEARTBEAT_S + 2 * _HEARTBEAT_ANSWER_S

    def listen(self, channel: str, receive: Callable[[bytes], None]) -> None:
        """Before `start()`. `receive` must not block; messages come in the order in which Redis took them."""
        self._listeners[channel.encode()] = receive

    def on_up(self, prepare: Callable[[], None]) -> None:
        """`prepare` runs subscribed but before the link counts as up: what may have changed unheard is forgotten there."""
        self._on_up.append(prepare)

    async def start(self) -> None:
        """Tries once and returns; without Redis the process starts all the same and keeps trying."""
        self._owner = asyncio.create_task(self._own())
        await self._settled.wait()

    async def close(self) -> None:
        self._up = False
        if self._owner is not None:
            self._owner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._owner
            self._owner = None
        await self._client.aclose()

    async def run(self, command: Callable[[redis.asyncio.Redis], Awaitable[T]], *, telling: bool = True) -> T:
        """`telling` False: for what is sent often and at leisure; that it is late says nothing about Redis."""
        if not self.up:
            message = "Redis is down"
            raise RedisDownError(message)
        return await self._attempt(command, telling=telling)

    async def _attempt(self, command: Callable[[redis.asyncio.Redis], Awaitable[T]], *, telling: bool) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await command(self._client)
        except TimeoutError as error:
            # One may be this process's own fault (a busy event loop); several in a row are not.
            self._timeouts += telling
            if self._timeouts >= _TIMEOUTS_BEFORE_DOWN:
                self._lose("no answer in time")
            raise RedisDownError(str(error)) from None
        except _FAILURES as error:
            # An answer that says no (out of memory, for one) leaves the link alive. A read-only server is a demoted one.
            refused = isinstance(error, redis.exceptions.ResponseError)
            if not refused or isinstance(error, redis.exceptions.ReadOnlyError):
                self._lose(type(error).__name__)
            raise RedisDownError(str(error)) from None
        self._timeouts = 0
        return result

    def _lose(self, why: str) -> None:
        if self._up:
            log.warning("redis.down", why=why)
        self._up = False
        self._lost.set()

    async def _own(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async with self._client.pubsub() as subscription:
                    await self._establish(subscription)
                    pause_s = _FIRST_PAUSE_S
                    await self._attend(subscription)
            except _FAILURES as error:
                self._lose(type(error).__name__)
            finally:
                self._up = False
                self._settled.set()
            # Jitter: a hundred processes must not come back in the same millisecond.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load, hides nothing
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _establish(self, subscription: PubSub) -> None:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S + _HEARTBEAT_ANSWER_S):
            # Connections of before lead to a Redis that may have been replaced.
            await self._client.connection_pool.disconnect(inuse_connections=False)
            await subscription.subscribe(*self._listeners)
            for _ in self._listeners:
                await subscription.get_message(timeout=_HEARTBEAT_ANSWER_S)
            server = await self._client.info("server")
            self.run_id = str(server.get("run_id", ""))
        for prepare in self._on_up:
            prepare()
        self._lost.clear()
        self._timeouts = 0
        self._heard_at = time.monotonic()
        self._up = True
        self._settled.set()
        log.info("redis.up", run_id=self.run_id)

    async def _attend(self, subscription: PubSub) -> None:
        """Hand out messages until the connection fails, falls silent, or a command reports the link lost."""
        reader = asyncio.create_task(self._read(subscription))
        lost = asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait([reader, lost], return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                await reader
        finally:
            for task in (reader, lost):
                task.cancel()
            await asyncio.gather(reader, lost, return_exceptions=True)

    async def _read(self, subscription: PubSub) -> None:
        # A connection can be dead without anybody having said so: a ping that stays unanswered is how one finds out.
        pinged_at: float | None = None
        while True:
            message = await subscription.get_message(timeout=_HEARTBEAT_S)
            now = time.monotonic()
            if message is not None:
                self._heard_at, pinged_at = now, None
                if message["type"] == "message":
                    self._listeners[message["channel"]](message["data"])
            elif pinged_at is not None and now - pinged_at >= _HEARTBEAT_ANSWER_S:
                raise redis.exceptions.ConnectionError
            elif pinged_at is None:
                pinged_at = now
                await subscription.ping()
