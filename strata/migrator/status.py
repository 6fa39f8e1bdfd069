"""A move as people and programs see it: one shape for command line, API and pages."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from strata.migrator.moves import Failure, Move, Place
from strata.migrator.phases import Phase, Stage, Wish


class MoveStatus(msgspec.Struct, frozen=True, rename={"source": "from", "target": "to"}):
    id: UUID
    tenant: str
    source: Place
    target: Place
    server: str
    phase: Phase
    stage: Stage
    attempt: int
    hold: bool
    wish: Wish | None
    tables: dict[str, dict[str, Any]]
    """By name: rows and bytes copied, rows there are by the planner's estimate."""
    rows: int
    bytes: int
    rows_per_s: int | None
    eta_s: float | None
    lag_bytes: int | None
    waiting: str | None
    """What the move waits for, if it does."""
    throttled: str | None
    """What makes the copy go slower than it could, if it does."""
    write_block_ms: float | None
    retained_until: datetime | None
    failure: Failure | None
    worker: str | None
    started_by: str
    created_at: datetime
    finished_at: datetime | None


def status_of(move: Move) -> MoveStatus:
    seen = move.progress
    return MoveStatus(
        id=move.id,
        tenant=move.slug,
        source=move.source,
        target=move.target,
        server=move.target_server,
        phase=move.phase,
        stage=move.stage,
        attempt=move.attempt,
        hold=move.hold,
        wish=move.wish,
        tables=seen.get("tables", {}),
        rows=seen.get("rows", 0),
        bytes=seen.get("bytes", 0),
        rows_per_s=seen.get("rows_per_s"),
        eta_s=seen.get("eta_s"),
        lag_bytes=seen.get("lag_bytes"),
        waiting=seen.get("waiting"),
        throttled=seen.get("throttled"),
        write_block_ms=move.write_block_ms,
        retained_until=move.retained_until,
        failure=move.failure,
        worker=move.worker if move.leased_until is not None else None,
        started_by=move.started_by,
        created_at=move.created_at,
        finished_at=move.finished_at,
    )
