"""Closing a tenant to standbys ahead of a cut-over: step 5 of the migrator's protocol, done before the window opens.

The cut-over's fence is an advisory lock and a row, and a standby knows of neither until it has replayed the row, which
may be never. So the migrator takes the tenant off standbys first, while writes still flow, and waits until that binds
everywhere. It holds in the databases: neither a process that hears nothing nor a standby that nobody registered can
read the tenant on a standby afterwards.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

from strata.platform.errors import ConflictError
from strata.tenancy.replicas.lease import MARGIN_S, OVER_AFTER_S

if TYPE_CHECKING:
    import asyncpg


class NotAtThisEpochError(ConflictError):
    code = "not-at-this-epoch"
    title = "The tenant is not here at this epoch"

    def __init__(self, tenant_id: UUID, epoch: int) -> None:
        super().__init__(f"This cell does not hold tenant {tenant_id} at epoch {epoch}; read its placement again.")


async def close_to_standbys(cell: asyncpg.Connection, tenant_id: UUID, epoch: int) -> None:
    """Return when no standby of this cell lets the tenant in at `epoch`, whatever it has replayed and whoever asks.

    `cell`: the administrator's connection to the primary, in no transaction. At once where no standby has served lately;
    else it takes `OVER_AFTER_S` at most. Reads go to the primary meanwhile. Safe to repeat; cancelled half way, the
    tenant stays closed, which `reopen_to_standbys` or the next epoch ends. Errors: NotAtThisEpochError.
    """
    async with cell.transaction():
        closed = await cell.fetchval(
            "UPDATE strata.fence SET standby_closed_epoch = epoch WHERE tenant_id = $1 AND epoch = $2 RETURNING true",
            tenant_id,
            epoch,
        )
        if not closed:
            raise NotAtThisEpochError(tenant_id, epoch)
        # Leases under way end first, those to come wait for this commit: so each lease either is seen here, or reaches a
        # standby behind the closed row.
        await cell.execute("LOCK TABLE strata.standby_lease IN SHARE MODE")
        left_s: float | None = await cell.fetchval(
            "SELECT extract(epoch FROM max(leased_until) - clock_timestamp())::float8 FROM strata.standby_lease"
        )
    if left_s is not None:
        await asyncio.sleep(min(max(0.0, left_s + MARGIN_S), OVER_AFTER_S))


async def reopen_to_standbys(cell: asyncpg.Connection, tenant_id: UUID, epoch: int) -> None:
    """After a cut-over that was called off. Forgotten, it costs reads on the primary and nothing else."""
    await cell.execute(
        "UPDATE strata.fence SET standby_closed_epoch = NULL WHERE tenant_id = $1 AND epoch = $2", tenant_id, epoch
    )
