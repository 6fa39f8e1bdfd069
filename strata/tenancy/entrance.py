"""The way into a tenant's home, wherever it is by then, and out again."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol
from uuid import UUID

import asyncpg
from sqlalchemy.exc import DBAPIError

from strata.platform.database.failures import LOST, NO_ANSWER
from strata.platform.settings import FenceSettings
from strata.tenancy.audit.recording import NO_ENTRIES
from strata.tenancy.catalog.registry import UnknownCellError
from strata.tenancy.cell.door import CellSecret, Isolation, Refusal, entry_message
from strata.tenancy.cell.engines import CellEngines, OpenCell
from strata.tenancy.cell.fence_wait import FenceWait
from strata.tenancy.cell.pool import CellPool
from strata.tenancy.cell.pooled import Pooled
from strata.tenancy.cell.rehearsal import rehearse
from strata.tenancy.context import TenantContext
from strata.tenancy.context_loader import CatalogUnavailableError
from strata.tenancy.errors import (
    CapabilityRefusedError,
    CellClosedError,
    CellUnavailableError,
    MoveInProgressError,
    PlacementUnsettledError,
    TenantClosingError,
    TenantSuspendedError,
)
from strata.tenancy.model import Placement, TenantStatus
from strata.tenancy.replicas.choice import StandbyWay
from strata.tenancy.replicas.entering import enter_standby

_ENTRY_TRIES = 8
_CONNECTION_TRIES = 8
_RENEWED = frozenset({"28P01", "28000", "3D000"})
"""The password or the database is not what it was when the pool was made: the catalog knows better."""
STARTING_UP = (asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError)


class ContextSource(Protocol):
    async def fresh(self, tenant_id: UUID) -> TenantContext:
        """The context as the catalog has it now, past every cache."""


class Entrance:
    def __init__(self, engines: CellEngines, contexts: ContextSource, settings: FenceSettings) -> None:
        self._engines = engines
        self._contexts = contexts
        self._fence = FenceWait(contexts, self._is_open, settings)

    async def enter(
        self, context: TenantContext, isolation: Isolation, *, read_only: bool
    ) -> tuple[CellPool, Pooled, TenantContext]:
        """Come to stand in the tenant's home; with the context that led there. Nothing of the caller's has run yet."""
        admissible(context)
        forgotten: set[str] = set()
        for _ in range(_ENTRY_TRIES):
            name = context.placement.cell
            # The tenant may have been made read-only since the caller's context was cached.
            read_only = read_only or context.status is TenantStatus.READ_ONLY
            try:
                return *await self._try_enter(context, isolation, read_only=read_only), context
            except (CellUnavailableError, UnknownCellError):
                if await self._engines.has_other_address(name):
                    continue
                moved = await self._gone_from(context)
                if moved is None:
                    raise
                context = admissible(moved)
            except asyncpg.PostgresError as error:
                if error.sqlstate == Refusal.CAPABILITY:
                    # A cell made anew under this name has another secret by now; the catalog's counts, once.
                    if name in forgotten:
                        raise CapabilityRefusedError(name) from error
                    forgotten.add(name)
                elif error.sqlstate != Refusal.TIMELINE or not await self._engines.has_other_address(name):
                    # A primary of before that came back as a standby answers at the old address.
                    context = await self._turned_away(context, error)
        raise PlacementUnsettledError(context.id)

    async def _turned_away(self, context: TenantContext, error: asyncpg.PostgresError) -> TenantContext:
        """The context to try with next."""
        match error.sqlstate:
            case Refusal.STALE_EPOCH:
                return admissible(await self._newer_than(context))
            case Refusal.FENCED:
                return admissible(await self._fence.wait(context))
            case Refusal.SERIALIZATION:
                return context
            case Refusal.TIMELINE:
                raise CellClosedError(context.placement.cell) from error
            case _ if isinstance(error, STARTING_UP):
                raise CellUnavailableError(context.placement.cell) from error
            case _:
                raise error

    async def enter_standby(self, way: StandbyWay, context: TenantContext) -> tuple[CellPool, Pooled] | None:
        return await enter_standby(self._engines, way, context)

    def secret_of(self, pool: str) -> CellSecret | None:
        opened = self._engines.opened(pool)
        return None if opened is None else opened.cell.secret

    def look_again(self, tenant_id: UUID) -> None:
        """For those who wait at the tenant's fence."""
        self._fence.wake(tenant_id)

    async def make_ready(self, context: TenantContext, coming: Placement) -> None:
        """Have connections ready where the tenant will soon live. Nothing depends on it; a failure is the next one's."""
        here = self._engines.opened(context.placement.cell)
        statements = () if here is None else here.pool.lately_asked(context.placement.schema_name)
        home = self._engines.opened(coming.cell) or await self._engines.open(coming.cell)
        with contextlib.suppress(*LOST):
            await home.pool.make_ready(
                coming.schema_name,
                lambda pooled: rehearse(pooled, home.cell.secret, context.id, coming, statements, NO_ENTRIES),
            )

    async def leave(self, pool: CellPool, pooled: Pooled, context: TenantContext) -> None:
        """End what is still open and give the connection back, also when the caller is cancelled meanwhile."""
        await asyncio.shield(pool.in_background(_leave(pool, pooled, context)))

    def commit_behind(self, pool: CellPool, pooled: Pooled, context: TenantContext) -> None:
        """Commit, with nobody waiting for it."""
        _ = pool.in_background(_leave(pool, pooled, context, commit=True))

    async def _try_enter(
        self, context: TenantContext, isolation: Isolation, *, read_only: bool
    ) -> tuple[CellPool, Pooled]:
        name = context.placement.cell
        for _ in range(_CONNECTION_TRIES):
            home, pooled = await self._acquire(context)
            message = entry_message(home.cell.secret, context.id, context.placement, isolation, read_only=read_only)
            try:
                await pooled.driver.enter(message)
            except BaseException as error:
                await self.leave(home.pool, pooled, context)
                if isinstance(error, asyncpg.PostgresError) and error.sqlstate == Refusal.CAPABILITY:
                    await self._engines.forget(name, home)
                if not isinstance(error, LOST):
                    raise
                home.pool.mistrust_idle()
            else:
                return home.pool, pooled
        raise CellUnavailableError(name)

    async def _acquire(self, context: TenantContext, *, again: bool = True) -> tuple[OpenCell, Pooled]:
        name = context.placement.cell
        home = self._engines.opened(name) or await self._engines.open(name)
        try:
            return home, await home.pool.acquire(context.id, context.placement.schema_name)
        except DBAPIError as error:
            if again and getattr(error.orig, "sqlstate", None) in _RENEWED:
                await self._engines.forget(name, home)
                return await self._acquire(context, again=False)
            raise CellUnavailableError(name) from error

    async def _newer_than(self, refused: TenantContext) -> TenantContext:
        context = await self._contexts.fresh(refused.id)
        if context.placement != refused.placement:
            return context
        # A cut-over has opened the new home, and the catalog has yet to say so: the old one is refused, and the newest.
        try:
            return await self._fence.wait(context)
        except MoveInProgressError:
            raise PlacementUnsettledError(context.id) from None

    async def _gone_from(self, left: TenantContext) -> TenantContext | None:
        """Where the tenant lives by now, if elsewhere: a dedicated database goes soon after its tenant, and says nothing."""
        try:
            context = await self._contexts.fresh(left.id)
        except CatalogUnavailableError:
            return None
        return None if context.placement == left.placement else context

    async def _is_open(self, context: TenantContext) -> bool:
        """Whether the tenant's fence lets a transaction in right now."""
        try:
            pool, pooled = await self._try_enter(context, Isolation.READ_COMMITTED, read_only=True)
        except asyncpg.PostgresError as error:
            return error.sqlstate not in {Refusal.FENCED, Refusal.STALE_EPOCH}
        await self.leave(pool, pooled, context)
        return True


async def _leave(pool: CellPool, pooled: Pooled, context: TenantContext, *, commit: bool = False) -> None:
    try:
        # Bounded: nothing of the caller's hangs on it any more, but a place in the pool and the end of the process do.
        async with asyncio.timeout(pool.patience_s):
            await pooled.driver.leave(commit=commit)
    except NO_ANSWER:
        pooled.driver.terminate()
    finally:
        pool.release(pooled, context.id)


def admissible(context: TenantContext) -> TenantContext:
    """Routing turns the suspended and closing away; nor do they get in by a job, or by a retry with a newer context."""
    match context.status:
        case TenantStatus.SUSPENDED:
            raise TenantSuspendedError(context.id, context.status_reason)
        case TenantStatus.CLOSING | TenantStatus.CLOSED:
            raise TenantClosingError(context.id)
        case _:
            return context
