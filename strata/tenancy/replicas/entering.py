"""Into a tenant on a standby, or not; in the latter case nothing of the caller's has run and the primary is next."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy.exc import SQLAlchemyError

from strata.platform.database.failures import NO_ANSWER
from strata.platform.errors import StrataError
from strata.tenancy.errors import CellUnavailableError

if TYPE_CHECKING:
    from strata.tenancy.cell.engines import CellEngines
    from strata.tenancy.cell.pool import CellPool
    from strata.tenancy.cell.pooled import Pooled
    from strata.tenancy.context import TenantContext
    from strata.tenancy.replicas.choice import StandbyWay


class StandbyLostError(CellUnavailableError):
    """A standby failed under a read; routing runs the request again on the primary."""

    code = "standby-lost"


async def enter_standby(
    engines: CellEngines, way: StandbyWay, context: TenantContext
) -> tuple[CellPool, Pooled] | None:
    try:
        async with asyncio.timeout(way.timeout_s):
            entered = await _enter(engines, way, context)
    except (*NO_ANSWER, SQLAlchemyError, StrataError) as error:
        way.refused(getattr(error, "sqlstate", None))
        return None
    way.entered(entered[1].driver)
    return entered


async def _enter(engines: CellEngines, way: StandbyWay, context: TenantContext) -> tuple[CellPool, Pooled]:
    home = engines.opened(way.pool) or await engines.open(way.pool)
    pool = home.pool
    try:
        pooled = await pool.acquire(context.id, context.placement.schema_name)
    except SQLAlchemyError:
        # It answered, and said no: the password is another one by now, say. The catalog knows better.
        await engines.forget(way.pool, home)
        raise
    try:
        await pooled.driver.enter(way.message)
    except asyncpg.PostgresError:
        pool.release(pooled, context.id)
        raise
    except BaseException:
        pool.release(pooled, context.id)
        pool.mistrust_idle()
        raise
    return pool, pooled
