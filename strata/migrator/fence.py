"""The fence of a tenant in its cells. Each function is one atomic act of a cut-over or of its undoing.

They carry the names that the model of the protocol uses (docs/moving.md). What each compares with keeps it harmless
when it comes late, from a worker that slept:

    close_source    the row is active at epoch e, and no attempt after n has touched it
    drain           the row is shut by n
    open_target     in another cell: nothing there is of a later attempt; in the same: the row is shut by n
    retire          the row is at an epoch that the catalog has given up, which is never used again
    reopen_source   nothing there is of attempt n' or later; leaves n' behind, so that nothing before it closes any more.
                    And the row has been at e: a promoted standby that has not heard of the arrival at e stays shut
    reopen_shut     the row is shut at epoch e by an attempt before n'
    shut_lost       the lost home does not let the tenant in at its epoch; leaves e' behind, which nothing older passes
    open_kept       the row is the kept home's, as of its last stay or later, and nothing there is of a later attempt

What is done while the tenant waits is one statement each, and can be rehearsed on the same connection before: a fresh
back end takes several times as long for what it does for the first time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from strata.migrator.errors import CalledOffError
from strata.migrator.replay import marker_prefix
from strata.tenancy.model import FenceState

if TYPE_CHECKING:
    import asyncpg

_HOLDERS = """
SELECT a.pid, a.application_name AS application, extract(epoch FROM clock_timestamp() - a.xact_start) * 1000 AS age_ms
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
CROSS JOIN (SELECT strata.lock_key($1) AS key) AS k
WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.classid = ((k.key >> 32) & 4294967295)::oid AND l.objid = (k.key & 4294967295)::oid
ORDER BY age_ms DESC NULLS LAST
"""

APPROVED = "SELECT c.timeline = left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM strata.cell c"
"""Whether the server runs on the timeline that the cell knows."""


class Holder(msgspec.Struct, frozen=True):
    """A transaction inside the tenant's fence."""

    pid: int
    application: str
    age_ms: float


async def holders(source: asyncpg.Connection, tenant_id: UUID) -> list[Holder]:
    """Who is inside, oldest first. To be asked before the fence is shut: who waits for these keeps everybody waiting."""
    return [
        Holder(row["pid"], row["application"], float(row["age_ms"] or 0.0))
        for row in await source.fetch(_HOLDERS, tenant_id)
    ]


def _act(statement: str) -> str:
    """Held as by `End.hold`, SM007 and all, in the same statement. $1 tenant, $2 the cell's attempt, $3 only rehearsed."""
    return f"""
        WITH held AS MATERIALIZED (SELECT ({APPROVED}) AS approved, strata.hold_attempt($1, $2)),
             free AS (SELECT FROM held WHERE approved AND NOT $3::boolean),
             done AS ({statement} RETURNING true)
        SELECT held.approved, EXISTS (SELECT FROM done) AS done FROM held
    """  # noqa: S608 - statements of this module


_CLOSE = _act("""
    UPDATE strata.fence f SET state = 'moving', attempt = $5 FROM free
     WHERE f.tenant_id = $1 AND f.epoch = $4 AND f.state = 'active' AND coalesce(f.attempt, 0) <= $5
""")
_OPEN_ELSEWHERE = _act("""
    INSERT INTO strata.fence AS f (tenant_id, epoch, state, schema_name, attempt)
    SELECT $1, $4, 'active', $6, $5 FROM free
    ON CONFLICT (tenant_id) DO UPDATE SET epoch = excluded.epoch, state = excluded.state,
        schema_name = excluded.schema_name, attempt = excluded.attempt
     WHERE coalesce(f.attempt, 0) <= excluded.attempt
""")
_OPEN_HERE = _act("""
    UPDATE strata.fence f SET epoch = $4, state = 'active', schema_name = $6 FROM free
     WHERE f.tenant_id = $1 AND f.attempt = $5 AND f.state = 'moving'
""")


async def close_source(
    source: asyncpg.Connection, tenant_id: UUID, epoch: int, attempt: int, *, reign: int, rehearse: bool = False
) -> bool:
    """Step 2: whoever comes from now on is told to wait (SM002). False: the server runs on a timeline nobody approved.

    `reign`: the attempt that the cell is stamped with.
    """
    [row] = await source.fetch(_CLOSE, tenant_id, reign, rehearse, epoch, attempt)
    if row["approved"] and not row["done"] and not rehearse:
        raise CalledOffError(f"The fence is not open at epoch {epoch}: somebody else has changed it.")
    return bool(row["approved"])


async def drain(source: asyncpg.Connection, tenant_id: UUID, attempt: int, *, rehearse: bool = False) -> None:
    """Step 3: wait for those inside, under the connection's lock_timeout, and mark the log."""
    await source.fetchval(
        "SELECT strata.drain_fence($1, $2, $3)::text WHERE NOT $4::boolean",
        tenant_id,
        attempt,
        marker_prefix(tenant_id),
        rehearse,
    )


async def open_target(
    target: asyncpg.Connection,
    tenant_id: UUID,
    schema: str,
    epoch: int,
    attempt: int,
    *,
    same_cell: bool,
    reign: int,
    rehearse: bool = False,
) -> bool:
    """Step 6: the target lets in who comes with e', which nobody holds before the flip. False: as in `close_source`."""
    statement = _OPEN_HERE if same_cell else _OPEN_ELSEWHERE
    [row] = await target.fetch(statement, tenant_id, reign, rehearse, epoch, attempt, schema)
    if row["approved"] and not row["done"] and not rehearse:
        raise CalledOffError(f"The target's fence does not obey attempt {attempt}: a later one has it.")
    return bool(row["approved"])


async def retire(cell: asyncpg.Connection, tenant_id: UUID, epoch: int) -> None:
    """A home at an epoch that is over is nobody's: step 8 after the flip, or a target whose cut-over was called off.

    In one cell there is one row for both homes; it carries the epoch that stands, and none is found here.
    """
    await cell.execute(
        "UPDATE strata.fence SET state = $3 WHERE tenant_id = $1 AND epoch = $2",
        tenant_id,
        epoch,
        FenceState.MOVED.value,
    )


async def reopen_source(source: asyncpg.Connection, tenant_id: UUID, schema: str, epoch: int, attempt: int) -> None:
    """Undo 2 to 6, once the catalog has put `attempt` in the place of those before. The catalog leads: never earlier."""
    await source.execute(
        "UPDATE strata.fence SET state = $5, epoch = $3, schema_name = $2, attempt = $4"
        " WHERE tenant_id = $1 AND coalesce(attempt, 0) < $4 AND epoch >= $3",
        tenant_id,
        schema,
        epoch,
        attempt,
        FenceState.ACTIVE.value,
    )


async def reopen_shut(cell: asyncpg.Connection, tenant_id: UUID, epoch: int, attempt: int) -> None:
    """What a worker that died between the abort of a rollback and `reopen_source` has left shut."""
    await cell.execute(
        "UPDATE strata.fence SET state = $4, attempt = $3"
        " WHERE tenant_id = $1 AND epoch = $2 AND coalesce(attempt, 0) < $3 AND state = $5",
        tenant_id,
        epoch,
        attempt,
        FenceState.ACTIVE.value,
        FenceState.MOVING.value,
    )


async def shut_lost(cell: asyncpg.Connection, tenant_id: UUID, schema: str, epoch: int, attempt: int) -> None:
    """The home that is given up lets nobody in, whoever brings its old row or its rows back. See steps/acceptance.py."""
    await cell.execute(
        "INSERT INTO strata.fence AS f (tenant_id, epoch, state, schema_name, attempt) VALUES ($1, $3, $5, $2, $4)"
        " ON CONFLICT (tenant_id) DO UPDATE SET epoch = excluded.epoch, state = excluded.state,"
        " schema_name = excluded.schema_name, attempt = excluded.attempt",
        tenant_id,
        schema,
        epoch,
        attempt,
        FenceState.MOVED.value,
    )


async def open_kept(
    cell: asyncpg.Connection, tenant_id: UUID, schema: str, epoch_left: int, epoch: int, attempt: int
) -> bool:
    """The home that was left at `epoch_left` lets in who comes with e', which nobody holds before the flip.

    False: it is not here, or only as of an earlier stay of the tenant's.
    """
    opened: bool | None = await cell.fetchval(
        "UPDATE strata.fence SET epoch = $4, state = $6, attempt = $5"
        " WHERE tenant_id = $1 AND schema_name = $2 AND epoch >= $3 AND coalesce(attempt, 0) <= $5 RETURNING true",
        tenant_id,
        schema,
        epoch_left,
        epoch,
        attempt,
        FenceState.ACTIVE.value,
    )
    return bool(opened)


async def shut_kept(cell: asyncpg.Connection, tenant_id: UUID) -> None:
    """The kept home is not to be lived in: for a worker that holds the attempt, after an acceptance that died."""
    await cell.execute("UPDATE strata.fence SET state = $2 WHERE tenant_id = $1", tenant_id, FenceState.MOVED.value)


async def was_left(cell: asyncpg.Connection, tenant_id: UUID, schema: str, epoch: int) -> bool:
    """Whether the cell has the home that was left at the epoch: its row, as of then or of an acceptance that died."""
    found: bool = await cell.fetchval(
        "SELECT EXISTS (SELECT FROM strata.fence WHERE tenant_id = $1 AND schema_name = $2 AND epoch >= $3)",
        tenant_id,
        schema,
        epoch,
    )
    return found


async def withdraw(cell: asyncpg.Connection, tenant_id: UUID, schema: str) -> None:
    """Take away the row of a home that is given up, unless by now the row is another home's or lets people in."""
    await cell.execute(
        "DELETE FROM strata.fence WHERE tenant_id = $1 AND schema_name = $2 AND state = $3",
        tenant_id,
        schema,
        FenceState.MOVED.value,
    )


async def lets_in(cell: asyncpg.Connection, tenant_id: UUID, schema: str, epoch: int) -> bool:
    """Whether the tenant lives here, by the cell's own row."""
    found: bool = await cell.fetchval(
        "SELECT EXISTS (SELECT FROM strata.fence"
        " WHERE tenant_id = $1 AND schema_name = $2 AND epoch = $3 AND state = $4)",
        tenant_id,
        schema,
        epoch,
        FenceState.ACTIVE.value,
    )
    return found


async def stands_empty(cell: asyncpg.Connection, tenant_id: UUID, schema: str) -> bool:
    """Whether this cell lets nobody into `schema` as this tenant: what must hold before anything there is destroyed."""
    return not await cell.fetchval(
        "SELECT true FROM strata.fence WHERE tenant_id = $1 AND schema_name = $2 AND state <> $3",
        tenant_id,
        schema,
        FenceState.MOVED.value,
    )
