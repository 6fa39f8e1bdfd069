"""The flags of one process: compiled, asked without waiting for anything, and renewed behind everybody's back.

- A change is announced on Redis with its version; who hears it reads the catalog at once. Who asks meanwhile gets the set
  before, never nothing.
- While nothing can be heard, the catalog is asked every `context_ttl_without_redis_s`, and else every `context_ttl_s`.
- While the catalog does not answer, the flags stay as they were; staff cannot change them either then.
- What was counted is written to the catalog now and then; a process that dies loses what it counted since.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime

import msgspec
import structlog
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.platform.redis_link import RedisDownError, RedisLink
from strata.platform.settings import FlagSettings
from strata.tenancy.context import TenantContext
from strata.tenancy.flags.compiled_set import NOBODY, CompiledSet
from strata.tenancy.flags.compiling import Outcome
from strata.tenancy.flags.conditions import User
from strata.tenancy.flags.model import FlagSet, Reason
from strata.tenancy.flags.reading import read_flags
from strata.tenancy.flags.tables import FlagUseRow

log = structlog.get_logger(__name__)

CHANNEL = "strata:flags"
_USES_AT_ONCE = 1000

Use = tuple[str, str, Reason]


class Announcement(msgspec.Struct, frozen=True):
    version: int


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Announcement)


class Flags:
    """One per process; made before `link.start()`, closed before `link.close()`."""

    def __init__(self, catalog: AsyncEngine, link: RedisLink, settings: FlagSettings) -> None:
        self._catalog = catalog
        self._link = link
        self._settings = settings
        self._set = CompiledSet(FlagSet(0, {}, {}))
        self._read_at = float("-inf")
        self._wanted = 0
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        self._untold = False
        self._uses: dict[Use, int] = {}
        self._written_at = time.monotonic()
        self._keeper: asyncio.Task[None] | None = None
        link.listen(CHANNEL, self._hear)
        link.on_up(self._renew)

    # Asking

    def evaluate(self, key: str, context: TenantContext, user: User = NOBODY) -> Outcome:
        return self._set.evaluate(key, context, user)

    def is_on(self, key: str, context: TenantContext, user: User = NOBODY) -> bool:
        """Whether the variant's payload is true, or anything but nothing; an unknown flag is off."""
        return self._set.evaluate(key, context, user).is_on

    def __contains__(self, key: str) -> bool:
        return key in self._set

    @property
    def version(self) -> int:
        return self._set.source.version

    # Keeping up

    async def start(self) -> None:
        """A process that cannot read its flags at the start does not start: the error is its caller's."""
        await self._read()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._write_uses()

    async def announce(self) -> None:
        """After the commit that changed flags: this process uses the change from now on, the others in a moment."""
        self._untold = not (await self._refresh() and await self._publish())

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._settings.ttl_without_redis_s)
            self._wake.clear()
            age_s = time.monotonic() - self._read_at
            if self._untold:
                await self.announce()
            elif not self._link.up or self._wanted > self.version or age_s >= self._settings.ttl_s:
                await self._refresh()
            if time.monotonic() - self._written_at >= self._settings.uses_every_s:
                await self._write_uses()

    async def _refresh(self) -> bool:
        try:
            await self._read()
        except (SQLAlchemyError, OSError) as error:
            # What is held goes on serving; the keeper asks again.
            log.warning("flags.catalog_unavailable", error=type(error).__name__)
            return False
        return True

    async def _read(self) -> None:
        # One at a time: of two, the older could end last and put back what the newer has replaced.
        async with self._turn:
            wanted = self._wanted
            # Before: whoever asks for another look meanwhile gets it.
            self._read_at = time.monotonic()
            try:
                async with self._catalog.connect() as connection:
                    found = await read_flags(connection)
            except BaseException:
                self._read_at = float("-inf")
                raise
            if self._wanted == wanted:
                # A catalog restored from a backup has a lower version than was announced: it is the truth all the same.
                # What was announced meanwhile, this may have been too early for.
                self._wanted = min(wanted, found.version)
            if found.version != self.version:
                self._collect()
                self._set = CompiledSet(found)

    def _hear(self, message: bytes) -> None:
        try:
            self._wanted = max(self._wanted, _DECODER.decode(message).version)
        except msgspec.DecodeError as error:
            log.warning("flags.announcement_unreadable", error=str(error))
            self._read_at = float("-inf")
        self._wake.set()

    def _renew(self) -> None:
        """Redis is back: something may have been said meanwhile."""
        self._read_at = float("-inf")
        self._wake.set()

    async def _publish(self) -> bool:
        message = _ENCODER.encode(Announcement(self.version))
        try:
            await self._link.run(lambda client: client.publish(CHANNEL, message))
        except RedisDownError:
            return False
        return True

    # Counting

    def _collect(self) -> None:
        for outcome in self._set.outcomes():
            if outcome.count:
                use = (outcome.flag, outcome.variant, outcome.reason)
                self._uses[use] = self._uses.get(use, 0) + outcome.count
                outcome.count = 0

    async def _write_uses(self) -> None:
        self._written_at = time.monotonic()
        self._collect()
        while self._uses:
            batch = dict(list(self._uses.items())[:_USES_AT_ONCE])
            now = datetime.now(UTC)
            rows = [
                {
                    "flag": flag,
                    "day": now.date(),
                    "variant": variant,
                    "reason": reason,
                    "evaluations": n,
                    "last_at": now,
                }
                # In one order everywhere: two processes that write at once must not wait for each other.
                for (flag, variant, reason), n in sorted(batch.items())
            ]
            new = insert(FlagUseRow).values(rows)
            added = new.on_conflict_do_update(
                index_elements=["flag", "day", "variant", "reason"],
                set_={
                    "evaluations": FlagUseRow.evaluations + new.excluded.evaluations,
                    "last_at": func.greatest(FlagUseRow.last_at, new.excluded.last_at),
                },
            )
            try:
                async with self._catalog.begin() as connection:
                    await connection.execute(added)
            except (SQLAlchemyError, OSError) as error:
                log.warning("flags.uses_unwritten", error=type(error).__name__)
                return
            for use in batch:
                del self._uses[use]
