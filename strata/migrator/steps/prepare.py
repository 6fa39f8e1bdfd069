"""preparing: make the new home, empty, at the old one's revision. Its fence stays shut: it has none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from strata.migrator.errors import NotFitError
from strata.migrator.faults import reached
from strata.migrator.fitness import objections_to_revisions, objections_to_target
from strata.migrator.models import ObjectKind, Side
from strata.migrator.objects import MoveObject
from strata.migrator.phases import Phase
from strata.migrator.tables import describe
from strata.migrator.target import Target
from strata.migrator.transitions import Advance
from strata.tenancy.model import Tier

if TYPE_CHECKING:
    import asyncpg

    from strata.migrator.work import Work

_MADE = {
    Tier.SHARED: (ObjectKind.ROWS,),
    Tier.SCHEMA: (ObjectKind.SCHEMA, ObjectKind.ROLE),
    Tier.DEDICATED: (ObjectKind.DATABASE,),
}


class Prepare:
    phase: ClassVar = Phase.PREPARING
    rerunnable: ClassVar = True

    async def check(self, work: Work) -> None:
        """What stands against the move was looked at in `pending`; what stands against the target is, when there is one."""

    async def run(self, work: Work) -> Advance:
        place = work.move.target
        objects = [MoveObject(Side.TARGET, kind, f"{place.cell}/{place.schema_name}") for kind in _MADE[place.tier]]
        await work.around.objects.register(work.move, *objects)
        await reached("preparing.registered")

        async def guard(connection: asyncpg.Connection) -> None:
            """A worker that slept must not make again what has been removed since."""
            if place.tier is Tier.DEDICATED:
                # There is nothing yet that could be held: the catalog says whose the move is.
                await work.around.objects.register(work.move, *objects)
            else:
                await work.target.hold(connection)

        await work.around.homes[place.tier].make(work.target.site, guard)
        await work.look_again()
        await work.fence_off_the_past()
        # A move that failed and is tried again finds rows of the last time.
        await Target(work.target.home, work.target.warrant).empty()
        await _refuse_misfit(work)
        if work.target.home.exclusive:
            await Target(work.target.home, work.target.warrant).strip()
        return Advance(Phase.COPYING, "copying")

    async def compensate(self, work: Work) -> None:
        """What there is of the home is made whole by another run, or taken away by `cancelling`."""


async def _refuse_misfit(work: Work) -> None:
    async with work.source.admin() as source, work.target.admin() as target:
        await source.execute("SET row_security = off")
        await target.execute("SET row_security = off")
        tables = await describe(source, work.source.home.schema_name)
        objections = [
            *await objections_to_target(
                target, work.target.home, await describe(target, work.target.home.schema_name), tables
            ),
            *await objections_to_revisions(source, work.source.home.schema_name, target, work.target.home.schema_name),
        ]
    if objections:
        raise NotFitError([each.problem for each in objections])
