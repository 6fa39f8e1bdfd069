"""What is known of noisy neighbours, in the catalog."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Double, ForeignKey, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from strata.platform.ids import new_id
from strata.tenancy.catalog.tables import CatalogModel, one_of
from strata.tenancy.neighbours.detector import Verdict


class AdviceKind(StrEnum):
    THROTTLE = "throttle"
    MOVE = "move"
    INDEX = "index"


class AdviceState(StrEnum):
    PROPOSED = "proposed"
    CARRIED_OUT = "carried-out"
    DISMISSED = "dismissed"


class FindingRow(CatalogModel):
    """A verdict on a cell, from its first window to its last. Processes that find the same share one."""

    __tablename__ = "neighbour_finding"
    __table_args__ = (
        one_of("verdict", Verdict),
        Index(
            "uq_neighbour_finding_open",
            "cell",
            "verdict",
            "tenant_id",
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_neighbour_finding_began_at", "began_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    cell: Mapped[str]
    verdict: Mapped[str]
    tenant_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenant.id"))
    """None: everyone in the cell."""
    began_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    evidence: Mapped[dict[str, Any]] = mapped_column(JSONB)


class AdviceRow(CatalogModel):
    __tablename__ = "neighbour_advice"
    __table_args__ = (
        one_of("kind", AdviceKind),
        one_of("state", AdviceState),
        Index(
            "uq_neighbour_advice_proposed",
            "tenant_id",
            "kind",
            "subject",
            unique=True,
            postgresql_where=text("state = 'proposed'"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"))
    kind: Mapped[str]
    subject: Mapped[str]
    """What it is about: a limit, a tier, a statement's fingerprint."""
    why: Mapped[str]
    action: Mapped[dict[str, Any]] = mapped_column(JSONB)
    state: Mapped[str] = mapped_column(server_default=text("'proposed'"))
    made_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str | None]


class StatementRow(CatalogModel):
    """A statement of a tenant's that was slow, without its literals."""

    __tablename__ = "slow_statement"
    __table_args__ = (Index("ix_slow_statement_last_at", "last_at"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    statement: Mapped[str]
    calls: Mapped[int]
    total_ms: Mapped[int]
    rows_touched: Mapped[int]
    slowest_ms: Mapped[int]
    last_at: Mapped[datetime]
    explained_at: Mapped[datetime | None]
    plan: Mapped[dict[str, Any] | None] = mapped_column(JSONB)


class LoadRow(CatalogModel):
    """What one process last saw of a tenant in a cell."""

    __tablename__ = "neighbour_load"

    cell: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    process: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime]
    connections: Mapped[float] = mapped_column(Double)
    """Database seconds per second; the rest by the second too."""
    statements: Mapped[float] = mapped_column(Double)
    rows_touched: Mapped[float] = mapped_column(Double)
    waits_s: Mapped[float] = mapped_column(Double)
    """Spent on waiting for connections."""
    cpu_estimate: Mapped[float] = mapped_column(Double)
    """The application's processor time, by the tenant's part of the time that requests took."""
    memory_estimate_bytes: Mapped[int]
    """The process's memory, by the same part."""
