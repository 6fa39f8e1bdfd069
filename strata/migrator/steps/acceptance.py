"""A person accepts that the home a tenant lives in is lost: it lives on in the other one, which the move has kept.

The acts bear the names of the model (docs/moving.md). They are those of a cut-over whose source nobody can be inside of:

    shut_lost     lost home:  fence row `moved` at e', unless the tenant is let in there after all
    open_kept     kept home:  fence row active at e' (harmless before the flip: nobody holds e')
    accept_loss   catalog:    placement at e', by compare-and-set on (failed, n)     (the machine)

And where a person gives the tenant up instead:

    look_for_both both homes: it is let in nowhere, and no home is kept; else nothing is given up
    give_up       catalog:    the move ends without a flip, by compare-and-set on (failed, n)     (the machine)

In one cell there is one row for both homes, and `open_kept` shuts the other with it. The whole is rerunnable: another run
takes another e'. What is left of the lost home is removed in `withdrawing` or `completing`, as after any other flip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from strata.migrator import fence
from strata.migrator.errors import HomeLostError, OtherHomeGoneError
from strata.migrator.faults import reached
from strata.migrator.losses import GIVEN_UP, being_removed
from strata.migrator.models import Side
from strata.migrator.phases import ENDS_BY, LIVES_ON, Phase, resumes_in
from strata.migrator.steps.roll_back import left_at
from strata.migrator.transitions import Advance, Flip

if TYPE_CHECKING:
    import asyncpg

    from strata.migrator.work import Work

_LOCK_TIMEOUT = "2s"


class _Loss(msgspec.Struct, frozen=True):
    lost: Side
    lived_at: int
    """The epoch of the placement, at which the lost home should let the tenant in."""
    kept: Side
    kept_at: int
    """The epoch of its last stay in the other one."""


def _loss(work: Work, failed_in: Phase) -> _Loss:
    if LIVES_ON[failed_in] is Phase.WITHDRAWING:
        return _Loss(Side.TARGET, left_at(work), Side.SOURCE, work.move.source_epoch)
    assert work.move.epoch is not None  # noqa: S101 - a rollback has been made
    return _Loss(Side.SOURCE, work.move.epoch, Side.TARGET, left_at(work))


async def accept_loss(work: Work) -> Advance:
    """OtherHomeGoneError: there is no home to live on in. Where the lost one is back, the move goes on as it was."""
    failed_in = work.move.failed_in
    assert failed_in is not None  # noqa: S101 - of a move that has not failed, the desk lets nobody accept anything
    loss = _loss(work, failed_in)
    lost, kept = work.ends[loss.lost], work.ends[loss.kept]
    await _require_kept(work, loss)
    epoch = await work.around.moves.next_epoch()
    if not await _shut(work, loss, epoch):
        return await try_again(work)
    if not work.move.in_one_cell:
        await reached("failed.shut")
        async with kept.writing() as cell:
            await _open(cell, work, loss, epoch)
    await reached("failed.opened")
    return Advance(
        LIVES_ON[failed_in],
        "loss accepted",
        epoch=epoch,
        flip=Flip(kept.place, loss.lived_at),
        # With the flip: should the kept home be lost one day too, nobody takes the lost one for a home.
        values={"progress": {**work.move.progress, being_removed(loss.lost): True}},
        detail={"lost": str(lost.place), "lives on in": str(kept.place), "epoch": epoch},
    )


async def give_up(work: Work) -> Advance:
    """Where neither home is there: the move ends, so that the tenant can be deleted. It is let in nowhere, as before, and lives
    by the catalog where it did: should that home be restored one day, it is open. HomeLostError: the other one is there.
    """
    failed_in = work.move.failed_in
    assert failed_in is not None  # noqa: S101 - as above
    loss = _loss(work, failed_in)
    lost, kept = work.ends[loss.lost], work.ends[loss.kept]
    if await _is_back(work, loss):
        return await try_again(work)
    if await _can_live_on(work, loss):
        raise HomeLostError(lost.place.cell, loss.lived_at)
    return Advance(
        ENDS_BY[failed_in],
        "given up",
        values={"progress": {**work.move.progress, GIVEN_UP: True}},
        detail={"lost": str(lost.place), "gone": str(kept.place)},
    )


async def try_again(work: Work) -> Advance:
    """What a failed move does that has nothing to accept. An acceptance that died may have opened the kept home: it is shut."""
    failed_in = work.move.failed_in or Phase.PENDING
    if failed_in in LIVES_ON and not work.move.in_one_cell:
        kept = work.ends[_loss(work, failed_in).kept]
        if await kept.is_there():
            async with kept.shutting() as cell:
                await fence.shut_kept(cell, work.move.tenant_id)
    return Advance(resumes_in(failed_in), "tried again")


async def _is_back(work: Work, loss: _Loss) -> bool:
    lost = work.ends[loss.lost]
    if not await lost.is_there():
        return False
    async with lost.writing() as cell:
        return await fence.lets_in(cell, work.move.tenant_id, lost.home.schema_name, loss.lived_at)


async def _require_kept(work: Work, loss: _Loss) -> None:
    """Before anything is shut: there is a home to live on in, and nobody has begun to take it away."""
    if not await _can_live_on(work, loss):
        raise OtherHomeGoneError(work.ends[loss.kept].place.cell, loss.kept_at)


async def _can_live_on(work: Work, loss: _Loss) -> bool:
    kept = work.ends[loss.kept]
    if work.move.progress.get(being_removed(loss.kept)) or not await kept.is_there():
        return False
    async with kept.writing() as cell:
        return await fence.was_left(cell, work.move.tenant_id, kept.home.schema_name, loss.kept_at)


async def _shut(work: Work, loss: _Loss, epoch: int) -> bool:
    """False: the tenant is let in there. Under its lock: whoever brings the row back does so before this look, or in vain."""
    lost, tenant_id = work.ends[loss.lost], work.move.tenant_id
    if not await lost.is_there():
        return True
    async with lost.writing() as cell:
        await cell.execute("SELECT set_config('lock_timeout', $1, true)", _LOCK_TIMEOUT)
        await cell.execute("SELECT pg_advisory_xact_lock(strata.lock_key($1))", tenant_id)
        if await fence.lets_in(cell, tenant_id, lost.home.schema_name, loss.lived_at):
            return False
        if work.move.in_one_cell:
            await _open(cell, work, loss, epoch)
        else:
            await fence.shut_lost(cell, tenant_id, lost.home.schema_name, epoch, work.move.attempt)
    return True


async def _open(cell: asyncpg.Connection, work: Work, loss: _Loss, epoch: int) -> None:
    kept = work.ends[loss.kept]
    if not await fence.open_kept(
        cell, work.move.tenant_id, kept.home.schema_name, loss.kept_at, epoch, work.move.attempt
    ):
        raise OtherHomeGoneError(kept.place.cell, loss.kept_at)
