"""A worker's part in waves: begins the next move where one may begin, stops a wave when too many have failed.

One worker drives a wave at a time, under a lease that runs out, and begins one move after the other. What it writes it
writes with the wave's row locked, after looking whether the wave still runs and is still its own: nothing begins after
somebody was told that the wave is paused, nor twice when a worker that slept wakes up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
import structlog
from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from strata.migrator.desk import Desk, Order, SamePlaceError
from strata.migrator.errors import MoveUnderWayError, NotFitError
from strata.migrator.faults import reached
from strata.migrator.verdicts import Verdict, verdict_on
from strata.migrator.waves.models import MemberState, WaveMemberRow, WaveRow, WaveState
from strata.migrator.waves.store import tally, window_of
from strata.platform.errors import StrataError
from strata.tenancy.catalog.audit import SYSTEM, record
from strata.tenancy.catalog.tables import CellRow, PlacementRow, ServerRow, TenantRow
from strata.tenancy.errors import UnknownTenantError
from strata.tenancy.model import TenantStatus, Tier
from strata.tenancy.provisioning.exclusion import TenantBusyError
from strata.tenancy.provisioning.placing import NoRoomError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from strata.migrator.moves import Move
    from strata.migrator.waves.store import Waves
    from strata.platform.settings import MigratorSettings

log = structlog.get_logger(__name__)

_AGAIN_AFTER = timedelta(seconds=5)
_PASSED_OVER_AT_ONCE = 200
"""Tenants with nothing to do, in one transaction: it must end well before the lease does."""
_BEGIN_WITHIN_S = 60.0
"""Of one move: a server that says nothing must not hold the whole wave up."""


class Turn(msgspec.Struct, frozen=True):
    """A tenant whose move may begin now."""

    tenant_id: UUID
    order: Order
    position: int


class LostError(Exception):
    """The wave is another worker's, or it runs no longer."""


class WaveDriver:
    """`worker`: a name that no other process has at the same time."""

    def __init__(self, waves: Waves, desk: Desk, settings: MigratorSettings, worker: str) -> None:
        self._waves = waves
        self._desk = desk
        self._settings = settings
        self._worker = worker
        self._driving: dict[UUID, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                self._woken.clear()
                await self._take_up()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.poll_s):
                        await self._woken.wait()
        finally:
            for task in self._driving.values():
                task.cancel()
            await asyncio.gather(*self._driving.values(), return_exceptions=True)

    async def _take_up(self) -> None:
        try:
            drivable = await self._waves.drivable()
        except (SQLAlchemyError, OSError) as error:
            log.warning("waves.unreadable", error=type(error).__name__)
            return
        for wave_id in drivable:
            if wave_id not in self._driving:
                task = asyncio.create_task(self._drive_and_tell(wave_id), name=f"wave-{wave_id}")
                self._driving[wave_id] = task
                task.add_done_callback(partial(self._done, wave_id))

    def _done(self, wave_id: UUID, _task: asyncio.Task[None]) -> None:
        self._driving.pop(wave_id, None)

    async def _drive_and_tell(self, wave_id: UUID) -> None:
        try:
            await self.drive(wave_id)
        except (SQLAlchemyError, OSError) as error:
            log.warning("wave.let_go", wave=str(wave_id), error=type(error).__name__)
        except Exception:
            # The edge of the job: the lease runs out, and the next look takes the wave up from what is written.
            log.exception("wave.dropped", wave=str(wave_id))

    async def drive(self, wave_id: UUID) -> None:
        """Until the wave runs no longer, or is another worker's."""
        if not await self._take(wave_id):
            return
        try:
            while True:
                turn = await self._turn(wave_id)
                if turn is None:
                    await asyncio.sleep(self._settings.heartbeat_s)
                else:
                    await self._begin(wave_id, turn)
        except LostError:
            return
        finally:
            with contextlib.suppress(SQLAlchemyError, OSError):
                await asyncio.shield(self._let_go(wave_id))

    async def _take(self, wave_id: UUID) -> bool:
        async with self._waves.writing() as session:
            row = await session.scalar(
                select(WaveRow)
                .where(
                    WaveRow.id == wave_id,
                    WaveRow.state == WaveState.RUNNING,
                    or_(WaveRow.leased_until.is_(None), WaveRow.leased_until < func.clock_timestamp()),
                )
                .with_for_update(skip_locked=True)
            )
            if row is None:
                return False
            row.driver = self._worker
            row.leased_until = self._until()
        return True

    async def _let_go(self, wave_id: UUID) -> None:
        async with self._waves.writing() as session:
            row = await session.get(WaveRow, wave_id, with_for_update=True)
            if row is not None and row.driver == self._worker:
                row.leased_until = None

    def _until(self) -> datetime:
        # By the database's clock; SQLAlchemy takes the expression for the value.
        expression: datetime = func.clock_timestamp() + timedelta(seconds=self._settings.lease_s)  # type: ignore[assignment]
        return expression

    @asynccontextmanager
    async def _own(self, wave_id: UUID) -> AsyncIterator[tuple[AsyncSession, WaveRow]]:
        """A transaction with the wave's row locked, which still runs and is still ours; renews the lease."""
        async with self._waves.writing() as session:
            row = await self._owned(session, wave_id)
            row.leased_until = self._until()
            yield session, row

    async def _owned(self, session: AsyncSession, wave_id: UUID) -> WaveRow:
        row = await session.get(WaveRow, wave_id, with_for_update=True, populate_existing=True)
        if row is None or row.driver != self._worker or row.state != WaveState.RUNNING:
            raise LostError
        return row

    async def _turn(self, wave_id: UUID) -> Turn | None:
        """Whose turn it is, if anybody's; ends or stops the wave when it is time."""
        async with self._own(wave_id) as (session, row):
            now = await tally(session, wave_id)
            if not now.waiting and not now.busy:
                _end(session, row, WaveState.FINISHED, None)
                return None
            if now.failed - row.forgiven >= row.max_failures:
                who = "1 tenant" if now.failed == 1 else f"{now.failed} tenants"
                told = f"{who} did not arrive: look why, then resume, retry or cancel the wave."
                _end(session, row, WaveState.STOPPED, told)
                return None
            if not now.waiting or now.busy >= row.parallel:
                row.waiting = None
                return None
            window = window_of(row)
            moment = datetime.now(UTC)
            if window is not None and not window.open_at(moment):
                row.waiting = f"its hours begin at {window.opens_after(moment):%Y-%m-%d %H:%M} UTC ({window})"
                return None
            return await self._next(session, row)

    async def _next(self, session: AsyncSession, row: WaveRow) -> Turn | None:
        for _ in range(_PASSED_OVER_AT_ONCE):
            if (found := await self._waiting(session, row)) is None:
                return None
            member, tenant, tier, cell, server = found
            if reason := _nothing_to_do(member, tenant, tier, cell, server):
                member.state, member.reason = MemberState.SKIPPED, reason
                continue
            row.waiting = None
            order = Order(
                tenant.slug,
                Tier(member.to_tier),
                cell=member.to_cell,
                server=_server(member),
                retention_s=row.retention_s,
            )
            return Turn(member.tenant_id, order, member.position)
        return None

    async def _waiting(
        self, session: AsyncSession, row: WaveRow
    ) -> tuple[WaveMemberRow, TenantRow, str | None, str | None, str | None] | None:
        """The first that may begin, and where its tenant is: tier, cell, server."""
        return (
            await session.execute(
                select(WaveMemberRow, TenantRow, PlacementRow.tier, CellRow.name, ServerRow.name)
                .join(TenantRow, TenantRow.id == WaveMemberRow.tenant_id)
                .outerjoin(PlacementRow, PlacementRow.tenant_id == TenantRow.id)
                .outerjoin(CellRow, CellRow.id == PlacementRow.cell_id)
                .outerjoin(ServerRow, ServerRow.id == CellRow.server_id)
                .where(
                    WaveMemberRow.wave_id == row.id,
                    WaveMemberRow.state == MemberState.WAITING,
                    or_(WaveMemberRow.not_before.is_(None), WaveMemberRow.not_before < func.clock_timestamp()),
                )
                .order_by(WaveMemberRow.not_before.is_not(None), WaveMemberRow.position)
                .limit(1)
            )
        ).one_or_none()

    async def _begin(self, wave_id: UUID, turn: Turn) -> None:
        async def along(session: AsyncSession, move: Move) -> None:
            await self._owned(session, wave_id)
            member = await _member(session, wave_id, turn)
            member.state, member.move_id, member.reason, member.code = MemberState.BEGUN, move.id, None, None

        try:
            async with asyncio.timeout(_BEGIN_WITHIN_S):
                await self._desk.start(turn.order, f"wave/{wave_id}", along=along)
        except (LostError, SQLAlchemyError):
            raise
        except Exception as error:  # noqa: BLE001 - one tenant that cannot be moved must not keep the others
            await self._refuse(wave_id, turn, error)
        else:
            await reached("wave.begun")

    async def _refuse(self, wave_id: UUID, turn: Turn, error: Exception) -> None:
        async with self._own(wave_id) as (session, row):
            member = await _member(session, wave_id, turn)
            member.code = error.code if isinstance(error, StrataError) else type(error).__name__
            member.reason = error.detail if isinstance(error, StrataError) else f"{type(error).__name__}: {error}"
            if isinstance(error, (SamePlaceError, UnknownTenantError)):
                member.state = MemberState.SKIPPED
            elif _passes(error):
                member.not_before = func.clock_timestamp() + _AGAIN_AFTER
                row.waiting = f"{turn.order.slug}: {member.reason}"
            else:
                member.state = MemberState.REFUSED
            reason = member.reason
        unexpected = None if isinstance(error, StrataError) else error
        log.warning("wave.not_begun", wave=str(wave_id), tenant=turn.order.slug, reason=reason, exc_info=unexpected)


async def _member(session: AsyncSession, wave_id: UUID, turn: Turn) -> WaveMemberRow:
    member = await session.get_one(WaveMemberRow, (wave_id, turn.tenant_id), populate_existing=True)
    if member.state != MemberState.WAITING:
        raise LostError
    return member


def _end(session: AsyncSession, row: WaveRow, state: WaveState, why: str | None) -> None:
    row.state, row.waiting, row.leased_until = state, why, None
    if state is WaveState.FINISHED:
        row.finished_at = func.clock_timestamp()
    record(session, SYSTEM, f"wave.{state.value}", str(row.id), detail={} if why is None else {"reason": why})


def _nothing_to_do(
    member: WaveMemberRow, tenant: TenantRow, tier: str | None, cell: str | None, server: str | None
) -> str | None:
    if tier is None or tenant.status == TenantStatus.CLOSED:
        return "The tenant is gone."
    if member.leaves:
        return None if cell == member.from_cell else f"It has left {member.from_cell} already."
    there = member.to_cell in {None, cell} and member.to_server in {None, server}
    return f"It is {tier} in {cell} already." if tier == member.to_tier and there else None


def _server(member: WaveMemberRow) -> str | None:
    """A drain names the server also for a shared cell, where it says nothing that the cell does not."""
    return member.to_server if member.to_tier == Tier.DEDICATED else None


def _passes(error: Exception) -> bool:
    """Whether the next try can go otherwise without anybody's doing."""
    if isinstance(error, NotFitError):
        return error.passes
    if isinstance(error, NoRoomError):
        return False
    # Another driver was quicker by an instant: the next try sees whether that move ends by itself.
    return isinstance(error, (TenantBusyError, MoveUnderWayError)) or verdict_on(error) is Verdict.AGAIN
