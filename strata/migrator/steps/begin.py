"""pending: look whether the move is possible at all, before anything is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from strata.migrator.errors import NotFitError, PutOffError
from strata.migrator.phases import Phase
from strata.migrator.preflight import objections_to
from strata.migrator.transitions import Advance

if TYPE_CHECKING:
    from strata.migrator.work import Work


class Begin:
    phase: ClassVar = Phase.PENDING
    rerunnable: ClassVar = True

    async def check(self, work: Work) -> None:
        objections = await objections_to(work.source, work.settings)
        if not objections:
            return
        sentences = [each.sentence for each in objections]
        if all(each.passes for each in objections):
            raise PutOffError(" ".join(sentences))
        raise NotFitError(sentences)

    async def run(self, work: Work) -> Advance:
        for server in sorted({work.source.site.server.name, work.move.target_server}):
            before = await work.around.moves.before_on(server, work.move)
            if before >= work.settings.moves_per_server:
                message = (
                    f"{before} moves are under way or due before this one on server {server}, and at most "
                    f"{work.settings.moves_per_server} go at a time (STRATA_MIGRATOR__MOVES_PER_SERVER)."
                )
                raise PutOffError(message)
        return Advance(Phase.PREPARING, "preparing", detail={"worker": work.reign})

    async def compensate(self, work: Work) -> None:
        """Nothing has been made."""
