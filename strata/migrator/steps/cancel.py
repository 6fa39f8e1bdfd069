"""cancelling: the tenant never left; take away everything that was made for the move."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from strata.migrator.models import Side
from strata.migrator.phases import Phase
from strata.migrator.steps.cut_over import undo
from strata.migrator.steps.removal import cell_of, remove_home
from strata.migrator.streams import Direction
from strata.migrator.transitions import Advance
from strata.tenancy.replicas.closing import reopen_to_standbys

if TYPE_CHECKING:
    from strata.migrator.work import Work


class Cancel:
    phase: ClassVar = Phase.CANCELLING
    rerunnable: ClassVar = True

    async def check(self, work: Work) -> None:
        """Each destructive act checks for itself, in its own transaction."""

    async def run(self, work: Work) -> Advance:
        if work.move.epoch is not None:
            # Of a cut-over that was called off: whoever did so may have died, or a standby not have heard of its end.
            await undo(work, Direction.OUT, work.move.source_epoch)
        await work.streams.close_all()
        dropped = await work.around.objects.drop_streams(work.move.id, work.ends)
        async with work.source.shutting() as source:
            await reopen_to_standbys(source, work.move.tenant_id, work.move.source_epoch)
        removed = await remove_home(work, Side.TARGET)
        detail = {"removed": [*dropped, *removed]}
        return Advance(Phase.CANCELLED, "cancelled", cell_gone=cell_of(work.target), detail=detail)

    async def compensate(self, work: Work) -> None:
        """What is left is taken away by another run."""
