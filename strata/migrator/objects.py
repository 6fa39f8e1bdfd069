"""Everything a move makes, by name, in the catalog: written before the thing is made, deleted after it is gone.

Whatever dies in between, the catalog knows at least as much as there is. `Objects.drop` takes things away in the order
in which they can go: who uses a thing before the thing, a slot before its publication.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from strata.migrator import publications
from strata.migrator.errors import SupersededError
from strata.migrator.models import MoveObjectRow, MoveRow, ObjectKind, Side
from strata.migrator.origins import drop_origin
from strata.migrator.slots import SlotPin, drop_slot

if TYPE_CHECKING:
    from strata.migrator.moves import Move, Moves
    from strata.migrator.sessions import Reign
    from strata.migrator.sites import End

STREAM_KINDS = (ObjectKind.SLOT, ObjectKind.PUBLICATION, ObjectKind.ORIGIN)
"""In the order in which they are dropped: a slot whose publication is gone loses rows without an error."""


class MoveObject(msgspec.Struct, frozen=True):
    side: Side
    kind: ObjectKind
    name: str
    detail: dict[str, Any] = {}

    @property
    def pin(self) -> SlotPin:
        return msgspec.convert(self.detail, SlotPin)


class Objects:
    def __init__(self, moves: Moves) -> None:
        self._moves = moves

    async def register(self, move: Move, *objects: MoveObject) -> None:
        """Before they are made. Checks, with the row locked, that the attempt still has the move."""
        async with self._moves.writing() as session:
            held = await session.scalar(
                select(MoveRow.id).where(MoveRow.id == move.id, MoveRow.attempt == move.attempt).with_for_update()
            )
            if held is None:
                raise SupersededError(move.id, move.attempt)
            for each in objects:
                values = {"move_id": move.id, **msgspec.structs.asdict(each)}
                await session.execute(
                    insert(MoveObjectRow)
                    .values(**values)
                    .on_conflict_do_update(
                        index_elements=["move_id", "side", "kind", "name"], set_={"detail": each.detail}
                    )
                )

    async def of(self, move_id: UUID, *, side: Side | None = None, kind: ObjectKind | None = None) -> list[MoveObject]:
        query = select(MoveObjectRow).where(MoveObjectRow.move_id == move_id).order_by(MoveObjectRow.registered_at)
        if side is not None:
            query = query.where(MoveObjectRow.side == side)
        if kind is not None:
            query = query.where(MoveObjectRow.kind == kind)
        async with self._moves.writing() as session:
            return [
                MoveObject(Side(row.side), ObjectKind(row.kind), row.name, row.detail)
                for row in await session.scalars(query)
            ]

    async def forget(self, move_id: UUID, *objects: MoveObject) -> None:
        """After they are gone."""
        async with self._moves.writing() as session:
            for each in objects:
                await session.execute(
                    delete(MoveObjectRow).where(
                        MoveObjectRow.move_id == move_id,
                        MoveObjectRow.side == each.side,
                        MoveObjectRow.kind == each.kind,
                        MoveObjectRow.name == each.name,
                    )
                )

    async def drop_streams(
        self, move_id: UUID, ends: dict[Side, End], *, only: Collection[str] | None = None, held: bool = True
    ) -> list[str]:
        """Drop slots, publications and origins (`only` those names), whether or not they were ever made; their names.

        `held`: for the worker that has the move. One that slept must not drop what another has made since.
        """
        dropped = []
        registered = await self.of(move_id)
        # A server that was failed over may not have the database: then it has nothing that stood in it either.
        there = {
            side: await end.is_there() for side, end in ends.items() if any(each.side is side for each in registered)
        }
        for kind in STREAM_KINDS:
            for each in registered:
                if each.kind is kind and (only is None or each.name in only):
                    if there[each.side]:
                        end = ends[each.side]
                        await _DROPS[kind](end.dsn, each.name, end.reign if held else None)
                    await self.forget(move_id, each)
                    dropped.append(f"{kind.value} {each.name}")
        return dropped


_DROPS: dict[ObjectKind, Callable[[str, str, Reign | None], Awaitable[None]]] = {
    ObjectKind.SLOT: drop_slot,
    ObjectKind.PUBLICATION: publications.drop,
    ObjectKind.ORIGIN: drop_origin,
}
