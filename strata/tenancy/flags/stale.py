"""Flags that have done their work: nobody asks them, or everybody gets the same answer, for some time now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.tenancy.flags.model import EVERYBODY, Flag
from strata.tenancy.flags.tables import FlagRow, FlagUseRow


class Staleness(StrEnum):
    KILLED = "killed"
    ENDED = "ended"
    AT_ZERO = "at-0"
    """Nobody is within its share, and no rule lets anybody in."""
    AT_ALL = "at-100"
    """Everybody is, and no rule comes before."""
    UNASKED = "unasked"
    ONE_ANSWER = "one-answer"
    """Whoever asked got the same variant."""


class StaleFlag(msgspec.Struct, frozen=True):
    key: str
    why: list[Staleness]
    changed_at: datetime
    asked_at: datetime | None
    evaluations: int
    """Within the days looked at, as far as processes have told."""


async def stale_flags(catalog: AsyncEngine, days: int, now: datetime | None = None) -> list[StaleFlag]:
    """Of those that nobody has changed for so many days; by key."""
    now = now or datetime.now(UTC)
    since = now - timedelta(days=days)
    recent = FlagUseRow.last_at >= since
    uses = (
        select(
            FlagUseRow.flag,
            func.max(FlagUseRow.last_at).label("asked_at"),
            func.coalesce(func.sum(FlagUseRow.evaluations).filter(recent), 0).label("evaluations"),
            func.count(FlagUseRow.variant.distinct()).filter(recent).label("variants"),
        )
        .group_by(FlagUseRow.flag)
        .subquery()
    )
    chosen = (
        select(FlagRow.key, FlagRow.document, FlagRow.changed_at, uses.c.asked_at, uses.c.evaluations, uses.c.variants)
        .outerjoin(uses, uses.c.flag == FlagRow.key)
        .where(FlagRow.changed_at < since)
        .order_by(FlagRow.key)
    )
    async with catalog.connect() as connection:
        rows = (await connection.execute(chosen)).all()
    found = []
    for key, document, changed_at, asked_at, evaluations, variants in rows:
        why = _of_itself(msgspec.convert(document, Flag), since)
        if not variants:
            why.append(Staleness.UNASKED)
        elif variants == 1:
            why.append(Staleness.ONE_ANSWER)
        if why:
            found.append(StaleFlag(key, why, changed_at, asked_at, int(evaluations or 0)))
    return found


def _of_itself(flag: Flag, since: datetime) -> list[Staleness]:
    if flag.killed:
        return [Staleness.KILLED]
    if flag.ends_at is not None and flag.ends_at < since:
        return [Staleness.ENDED]
    if flag.rules or flag.split:
        return []
    if flag.rollout == EVERYBODY:
        return [Staleness.AT_ALL]
    return [Staleness.AT_ZERO] if flag.rollout == 0 else []
