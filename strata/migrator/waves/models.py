"""The catalog's tables of waves."""

from __future__ import annotations

from datetime import datetime, time
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column

from strata.platform.ids import new_id
from strata.tenancy.catalog.tables import CatalogModel, one_of
from strata.tenancy.model import Tier


class WaveState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    """As many have failed as may."""
    CANCELLED = "cancelled"
    FINISHED = "finished"


ENDED = frozenset({WaveState.CANCELLED, WaveState.FINISHED})


class Origin(StrEnum):
    """Where a wave has its tenants from."""

    NAMED = "named"
    PLAN = "plan"
    CELL = "cell"
    CELL_DRAIN = "cell-drain"
    SERVER_DRAIN = "server-drain"


class MemberState(StrEnum):
    WAITING = "waiting"
    BEGUN = "begun"
    """It has a move, which says the rest."""
    REFUSED = "refused"
    """No move could be begun."""
    SKIPPED = "skipped"
    """There was nothing to do: it is there already, or it is gone."""
    DROPPED = "dropped"
    """The wave was cancelled before its turn came."""


class WaveRow(CatalogModel):
    __tablename__ = "wave"
    __table_args__ = (
        one_of("state", WaveState),
        one_of("origin", Origin),
        CheckConstraint("parallel > 0 AND max_failures > 0 AND retention_s >= 0", name="sensible"),
        CheckConstraint(
            "(window_begins IS NULL) = (window_zone IS NULL) AND (window_ends IS NULL) = (window_zone IS NULL)",
            name="window_whole",
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    state: Mapped[str] = mapped_column(server_default=text("'running'"))
    origin: Mapped[str]
    subject: Mapped[str]
    """The plan, cell or server; of named tenants, how many."""
    destination: Mapped[str]
    """In words."""
    parallel: Mapped[int] = mapped_column(Integer)
    max_failures: Mapped[int] = mapped_column(Integer)
    forgiven: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """Failures that somebody has seen and gone on after; they do not count."""
    retention_s: Mapped[int] = mapped_column(Integer)
    window_begins: Mapped[time | None]
    window_ends: Mapped[time | None]
    window_zone: Mapped[str | None]
    waiting: Mapped[str | None]
    """What it waits for, or why it has stopped."""

    driver: Mapped[str | None]
    """Whoever begins its moves, until `leased_until`."""
    leased_until: Mapped[datetime | None]

    started_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    finished_at: Mapped[datetime | None]


class WaveMemberRow(CatalogModel):
    __tablename__ = "wave_member"
    __table_args__ = (
        one_of("state", MemberState),
        one_of("to_tier", Tier),
        CheckConstraint("(state = 'begun') = (move_id IS NOT NULL)", name="begun_with_a_move"),
        Index("ix_wave_member_wave_id_position", "wave_id", "position"),
        Index("ix_wave_member_move_id", "move_id"),
        Index("ix_wave_member_tenant_id", "tenant_id"),
    )

    wave_id: Mapped[UUID] = mapped_column(ForeignKey("wave.id"), primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(server_default=text("'waiting'"))
    from_cell: Mapped[str]
    leaves: Mapped[bool]
    """It only has to get out of `from_cell`, on the tier it has."""
    to_tier: Mapped[str]
    to_cell: Mapped[str | None]
    to_server: Mapped[str | None]
    move_id: Mapped[UUID | None] = mapped_column(ForeignKey("move.id"))
    code: Mapped[str | None]
    reason: Mapped[str | None]
    """Why it was refused or skipped, or what the last try met."""
    not_before: Mapped[datetime | None]
