"""The catalog's tables of moves. `machine.py` alone writes a phase; `moves.py` reads and writes the rest."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Sequence,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from strata.migrator.phases import Phase, Wish
from strata.platform.ids import new_id
from strata.tenancy.catalog.tables import CatalogModel, one_of
from strata.tenancy.model import Tier

ATTEMPTS = Sequence("move_attempt", metadata=CatalogModel.metadata)
"""Numbers of attempts. Over all moves, so that no number ever means two things to a cell."""
EPOCHS = Sequence("placement_epoch", metadata=CatalogModel.metadata, start=2)
"""Epochs of cut-overs; a sequence forgets nothing when a transaction is rolled back: none is given out twice."""


class MoveRow(CatalogModel):
    __tablename__ = "move"
    __table_args__ = (
        one_of("phase", Phase),
        one_of("wish", Wish),
        one_of("source_tier", Tier),
        one_of("target_tier", Tier),
        CheckConstraint("(phase = 'failed') = (failed_in IS NOT NULL)", name="failed_somewhere"),
        CheckConstraint("retention_s >= 0", name="retention_not_negative"),
        # Another move may start when this one has been completed, cancelled or rolled back.
        Index(
            "uq_move_tenant_id_open",
            "tenant_id",
            unique=True,
            postgresql_where=text("phase NOT IN ('completed', 'cancelled', 'rolled_back')"),
        ),
        Index("ix_move_tenant_id_created_at", "tenant_id", "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"))
    phase: Mapped[str] = mapped_column(server_default=text("'pending'"))
    failed_in: Mapped[str | None]
    attempt: Mapped[int]
    """n. Whoever writes a state says which n it works for; a taken over or aborted attempt is over because n rose."""
    epoch: Mapped[int | None]
    """e', of the cut-over under way or of the last one done."""
    target_epoch: Mapped[int | None]
    """At which the tenant has lived in the new home; set by the flip, and what a rollback leaves."""
    number: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """Of the copy: names its slot and what belongs to it. A copy that starts again gets the next."""

    source_cell: Mapped[str]
    source_tier: Mapped[str]
    source_schema: Mapped[str]
    source_epoch: Mapped[int]
    target_cell: Mapped[str]
    target_server: Mapped[str]
    target_tier: Mapped[str]
    target_schema: Mapped[str]

    hold: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))
    """Stop at `ready` until somebody says `cutover`."""
    retention_s: Mapped[int] = mapped_column(Integer)
    retained_until: Mapped[datetime | None]
    wish: Mapped[str | None]
    progress: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    failure: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    write_block_ms: Mapped[float | None] = mapped_column(Float)

    worker: Mapped[str | None]
    """Whoever holds the lease, until `leased_until`."""
    leased_until: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    """The next try, after something stood in the way."""

    started_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    finished_at: Mapped[datetime | None]


class ObjectKind(StrEnum):
    SLOT = "slot"
    PUBLICATION = "publication"
    ORIGIN = "origin"
    PROGRESS = "progress"
    SCHEMA = "schema"
    ROWS = "rows"
    ROLE = "role"
    DATABASE = "database"
    FENCE = "fence"


class Side(StrEnum):
    SOURCE = "source"
    TARGET = "target"


class MoveObjectRow(CatalogModel):
    """Something a move makes in a cell; written before it is made, deleted after it is gone."""

    __tablename__ = "move_object"
    __table_args__ = (one_of("kind", ObjectKind), one_of("side", Side))

    move_id: Mapped[UUID] = mapped_column(ForeignKey("move.id"), primary_key=True)
    side: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    registered_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class MoveEventRow(CatalogModel):
    """What happened to a move, with times and counts; kept for good, only ever added to."""

    __tablename__ = "move_event"
    __table_args__ = (Index("ix_move_event_move_id_id", "move_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    move_id: Mapped[UUID] = mapped_column(ForeignKey("move.id"))
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    attempt: Mapped[int]
    phase: Mapped[str]
    """The move's phase from this event on."""
    actor: Mapped[str]
    what: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
