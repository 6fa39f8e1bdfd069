"""Takes away what dead moves have left: registered objects of finished ones, and what failed ones make servers keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog
from sqlalchemy import select

from strata.migrator.models import MoveObjectRow, ObjectKind, Side
from strata.migrator.objects import STREAM_KINDS
from strata.migrator.phases import FINISHED, Phase
from strata.migrator.slots import slot_state
from strata.platform.errors import StrataError
from strata.tenancy.catalog.registry import UnknownCellError

if TYPE_CHECKING:
    from uuid import UUID

    from strata.migrator.sites import End
    from strata.migrator.work import Surroundings

log = structlog.get_logger(__name__)


class Reaped(msgspec.Struct, frozen=True):
    move_id: UUID
    dropped: list[str]


class Reaper:
    def __init__(self, around: Surroundings) -> None:
        self._around = around

    async def reap(self) -> list[Reaped]:
        """Streams alone: homes are taken away by a move's own steps, which look at the fence first."""
        reaped = []
        for move_id in await self._with_objects():
            try:
                dropped = await self._reap(move_id)
            except (StrataError, OSError) as error:
                # One whose server is away must not keep the others from being reaped.
                log.warning("move.not_reaped", move=str(move_id), error=str(error))
                continue
            if dropped:
                log.info("move.reaped", move=str(move_id), dropped=dropped)
                reaped.append(Reaped(move_id, dropped))
        return reaped

    async def _with_objects(self) -> list[UUID]:
        async with self._around.moves.writing() as session:
            return list(await session.scalars(select(MoveObjectRow.move_id).distinct()))

    async def _reap(self, move_id: UUID) -> list[str]:
        move = await self._around.moves.get(move_id)
        if move.phase not in {*FINISHED, Phase.FAILED}:
            return []
        ends: dict[Side, End] = {}
        for side, find in ((Side.SOURCE, self._around.sites.source), (Side.TARGET, self._around.sites.target)):
            try:
                ends[side] = await find(move)
            except UnknownCellError:
                # Its database has been dropped, and everything in it with it.
                gone = await self._around.objects.of(move_id, side=side)
                await self._around.objects.forget(move_id, *gone)
        if move.phase is Phase.FAILED and not await self._keeps_too_much(move_id, ends):
            return []
        dropped = await self._around.objects.drop_streams(move_id, ends, held=False)
        if move.phase in FINISHED:
            rest = [each for each in await self._around.objects.of(move_id) if each.kind not in STREAM_KINDS]
            await self._around.objects.forget(move_id, *rest)
        return dropped

    async def _keeps_too_much(self, move_id: UUID, ends: dict[Side, End]) -> bool:
        for each in await self._around.objects.of(move_id, kind=ObjectKind.SLOT):
            state = await slot_state(ends[each.side].dsn, each.name) if each.side in ends else None
            if state is not None and (state.kept_bytes or 0) > self._around.settings.wal_cap_bytes:
                return True
        return False
