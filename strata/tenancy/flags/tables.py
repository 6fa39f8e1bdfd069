"""The catalog's flags: their documents, what was set for single tenants, every change, and how often each was asked."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from strata.platform.ids import new_id
from strata.tenancy.catalog.tables import CatalogModel, one_of


class FlagSetRow(CatalogModel):
    """One row: its version rises with every change of a flag or segment (triggers see to it), and orders the changes."""

    __tablename__ = "flag_set"
    __table_args__ = (CheckConstraint("id = 1", name="only_one"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int]


class FlagRow(CatalogModel):
    __tablename__ = "flag"

    key: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSONB)
    version: Mapped[int] = mapped_column(default=1, server_default=text("1"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    changed_by: Mapped[str]


class FlagSegmentRow(CatalogModel):
    __tablename__ = "flag_segment"

    name: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSONB)
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    changed_by: Mapped[str]


class FlagOverrideRow(CatalogModel):
    """A variant for one tenant; it reaches the tenant's context (facets/flag_overrides.py), not the set of flags."""

    __tablename__ = "flag_override"
    __table_args__ = (Index("ix_flag_override_flag", "flag"), Index("ix_flag_override_expires_at", "expires_at"))

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    flag: Mapped[str] = mapped_column(ForeignKey("flag.key"), primary_key=True)
    variant: Mapped[str]
    reason: Mapped[str]
    set_by: Mapped[str]
    set_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]


class FlagSubject(StrEnum):
    FLAG = "flag"
    SEGMENT = "segment"
    OVERRIDE = "override"


class FlagChangeRow(CatalogModel):
    """What was before and after; rows are only ever added. An undo names the change that it took back."""

    __tablename__ = "flag_change"
    __table_args__ = (
        one_of("subject", FlagSubject),
        Index("ix_flag_change_name_id", "name", "id"),
        Index("uq_flag_change_undoes", "undoes", unique=True, postgresql_where=text("undoes IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    subject: Mapped[str]
    name: Mapped[str]
    """Of the flag, or of the segment."""
    tenant_id: Mapped[UUID | None]
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    actor: Mapped[str]
    reason: Mapped[str | None]
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    undoes: Mapped[UUID | None]


class FlagUseRow(CatalogModel):
    """Evaluations by day, told by processes now and then: what stale flags are known by."""

    __tablename__ = "flag_use"

    flag: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    variant: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)
    evaluations: Mapped[int]
    last_at: Mapped[datetime]
