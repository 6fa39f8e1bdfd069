"""How far a target has come: one row for each replication origin, written in the transaction that applies the changes.

The origin and its row begin and end together. Only what this row says is ever told to the source; so a slot that is
ahead of it has lost changes, whatever the reason. The table is part of a cell's revision 0004.
"""

from __future__ import annotations

import msgspec

from strata.migrator.sessions import Reign, Session, held, target_session
from strata.platform.database.lsn import NOWHERE, Lsn, format_lsn, parse_lsn

_ADVANCE = """
    UPDATE strata.apply_progress
       SET position = %s::pg_lsn, marker = coalesce(%s, marker), updated_at = now()
     WHERE origin = %s AND attempt = %s AND position <= %s::pg_lsn
"""
# Physical standbys that are there; a logical walsender is a consumer like ourselves, a base backup no standby yet.
_STANDBYS = """
    SELECT pg_catalog.pg_current_wal_flush_lsn()::text,
           (SELECT min(r.flush_lsn)::text FROM pg_catalog.pg_stat_replication r
             WHERE r.state IN ('catchup', 'streaming')
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots s
                                WHERE s.active_pid = r.pid AND s.slot_type = 'logical'))
"""


class Progress(msgspec.Struct, frozen=True):
    origin: str
    attempt: int
    position: Lsn
    marker: str | None


async def start_progress(dsn: str, origin: str, attempt: int, position: Lsn, reign: Reign | None = None) -> None:
    """Say that the target holds the source as it was at `position`: when a copy is complete, before the first replay.

    An earlier attempt's row is taken over, and its applier finds that out before it commits anything more.
    """
    async with target_session(dsn) as connection, held(connection, reign):
        await connection.execute(
            "INSERT INTO strata.apply_progress (origin, attempt, position) VALUES (%s, %s, %s)"
            " ON CONFLICT (origin) DO UPDATE SET attempt = excluded.attempt, position = excluded.position,"
            " marker = NULL, updated_at = now() WHERE strata.apply_progress.attempt <= excluded.attempt",
            (origin, attempt, format_lsn(position)),
        )


async def read_progress(dsn: str, origin: str) -> Progress | None:
    async with target_session(dsn) as connection:
        return await progress_of(connection, origin)


async def progress_of(connection: Session, origin: str) -> Progress | None:
    row = await (
        await connection.execute(
            "SELECT attempt, position::text, marker FROM strata.apply_progress WHERE origin = %s", (origin,)
        )
    ).fetchone()
    return Progress(origin, row[0], parse_lsn(row[1]), row[2]) if row else None


def advancing(progress: Progress) -> tuple[str, tuple[str, str | None, str, int, str]]:
    """The statement that moves the row to `progress`; it finds no row when another attempt has taken over."""
    position = format_lsn(progress.position)
    return _ADVANCE, (position, progress.marker, progress.origin, progress.attempt, position)


class Durability:
    """Which progress would survive the loss of the target's primary.

    Observed now and then instead of after every commit: what was applied before an observation is safe once all
    standbys have flushed the log up to where it then stood. (The commits themselves wait for the primary's disk.)
    """

    def __init__(self) -> None:
        self._awaited: list[tuple[Lsn, Lsn]] = []
        self.safe = NOWHERE

    async def observe(self, connection: Session, applied: Lsn) -> Lsn:
        row = await (await connection.execute(_STANDBYS)).fetchone()
        assert row is not None  # noqa: S101 - a SELECT without FROM has one row
        here, standbys = parse_lsn(row[0]), parse_lsn(row[1]) if row[1] else None
        if standbys is None:
            self._awaited.clear()
            self.safe = max(self.safe, applied)
            return self.safe
        if not self._awaited or self._awaited[-1][0] < applied:
            self._awaited.append((applied, here))
        while self._awaited and self._awaited[0][1] <= standbys:
            self.safe = max(self.safe, self._awaited.pop(0)[0])
        # While a standby hangs, only the oldest and the newest tell anything.
        del self._awaited[1:-1]
        return self.safe
