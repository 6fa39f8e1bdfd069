"""The streams of a move: out, from the old home to the new one, and back. Opened when asked for, again after a break."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

from strata.migrator import publications
from strata.migrator.apply_tables import Route
from strata.migrator.errors import CopyAgainError
from strata.migrator.models import ObjectKind, Side
from strata.migrator.objects import MoveObject, Objects
from strata.migrator.origins import create_origin
from strata.migrator.progress import read_progress, start_progress
from strata.migrator.replay import Replay, Source, Target, replaying
from strata.migrator.slots import ExportedSlot, exported_slot
from strata.migrator.tables import TenantTables, describe

if TYPE_CHECKING:
    from strata.migrator.moves import Move
    from strata.migrator.sites import End


class Direction(StrEnum):
    OUT = "out"
    BACK = "back"


def stream_name(move: Move, direction: Direction) -> str:
    """Of slot, publication and origin alike. The end of a UUIDv7 is its random part; the number tells copies apart."""
    return f"strata_{move.id.hex[-12:]}_{move.number}_{direction.value}"


class Streams:
    """What one worker has open for one move."""

    def __init__(self, objects: Objects, ends: dict[Side, End]) -> None:
        self._objects = objects
        self._ends = ends
        self._open: dict[Direction, tuple[Replay, AsyncExitStack]] = {}

    def ends_of(self, direction: Direction) -> tuple[End, End]:
        """Where it comes from, where it goes."""
        source, target = self._ends[Side.SOURCE], self._ends[Side.TARGET]
        return (source, target) if direction is Direction.OUT else (target, source)

    async def tables(self, direction: Direction) -> TenantTables:
        origin, _ = self.ends_of(direction)
        async with origin.admin() as connection:
            return await describe(connection, origin.home.schema_name)

    async def publish(self, move: Move, direction: Direction, tables: TenantTables) -> str:
        """Publication and origin, which are there before the slot; registered before they are made."""
        name = stream_name(move, direction)
        sides = (Side.SOURCE, Side.TARGET) if direction is Direction.OUT else (Side.TARGET, Side.SOURCE)
        await self._objects.register(
            move,
            MoveObject(sides[0], ObjectKind.PUBLICATION, name),
            MoveObject(sides[0], ObjectKind.SLOT, name),
            MoveObject(sides[1], ObjectKind.ORIGIN, name),
        )
        origin, destination = self.ends_of(direction)
        await publications.create(origin.home, name, tables, origin.reign)
        await create_origin(destination.dsn, name, destination.reign)
        return name

    async def make_back(self, move: Move, deadline_s: float) -> None:
        """The way back. It needs no copy: the old home holds everything that the new one was made from."""
        name = stream_name(move, Direction.BACK)
        origin, destination = self.ends_of(Direction.BACK)
        if await self._pinned(move, name) is not None and await read_progress(destination.dsn, name) is not None:
            return
        await self._objects.drop_streams(move.id, self._ends, only=[name])
        await self.publish(move, Direction.BACK, await self.tables(Direction.BACK))
        async with self.slot(move, Direction.BACK, deadline_s) as slot:
            await start_progress(destination.dsn, name, origin.attempt, slot.pin.consistent_point, destination.reign)
            await self.pin(move, Direction.BACK, slot.pin)

    @asynccontextmanager
    async def slot(self, move: Move, direction: Direction, deadline_s: float) -> AsyncIterator[ExportedSlot]:
        """The direction's slot, made in the block. SupersededError: another has the move, and has looked for it in vain."""
        origin, _ = self.ends_of(direction)

        async def require_ours() -> None:
            await self._objects.register(move)

        async with exported_slot(
            origin.dsn, stream_name(move, direction), deadline_s=deadline_s, require_wanted=require_ours
        ) as slot:
            yield slot

    async def pin(self, move: Move, direction: Direction, pin: object) -> None:
        """Keep what tells this slot from another of the same name."""
        side = Side.SOURCE if direction is Direction.OUT else Side.TARGET
        detail = {name: getattr(pin, name) for name in ("name", "consistent_point", "system_identifier", "timeline")}
        await self._objects.register(move, MoveObject(side, ObjectKind.SLOT, stream_name(move, direction), detail))

    async def replay(self, move: Move, direction: Direction) -> Replay:
        """The running replay; one that has broken off is started again from its progress row."""
        found = self._open.get(direction)
        if found is not None:
            return found[0]
        name = stream_name(move, direction)
        slot = await self._pinned(move, name)
        if slot is None:
            message = f"No slot is recorded for {name}: what was copied does not fit any stream."
            raise CopyAgainError(message)
        origin, destination = self.ends_of(direction)
        for end in (origin, destination):
            await end.require_approved()
        await publications.check(origin.home, name, await self.tables(direction))
        route = Route(origin.home.schema_name, destination.home.schema_name, move.tenant_id)
        stack = AsyncExitStack()
        replay = await stack.enter_async_context(
            replaying(Source(origin.dsn, slot.pin, name), Target(destination.dsn, name, destination.attempt), route)
        )
        self._open[direction] = (replay, stack)
        return replay

    async def close(self, direction: Direction) -> None:
        found = self._open.pop(direction, None)
        if found is not None:
            await found[1].aclose()

    async def close_all(self) -> None:
        for direction in list(self._open):
            await self.close(direction)

    async def _pinned(self, move: Move, name: str) -> MoveObject | None:
        for each in await self._objects.of(move.id, kind=ObjectKind.SLOT):
            if each.name == name and each.detail:
                return each
        return None
