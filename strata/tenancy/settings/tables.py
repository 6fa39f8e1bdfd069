"""The catalog's tables of settings."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from strata.platform.ids import new_id
from strata.tenancy.catalog.tables import CatalogModel


class TenantSettingsRow(CatalogModel):
    """What a tenant has set, sparse; `version` is the number of its newest change, and the ETag."""

    __tablename__ = "tenant_settings"
    __table_args__ = (
        CheckConstraint("version >= 0", name="version_not_negative"),
        Index(
            "ix_tenant_settings_document",
            "document",
            postgresql_using="gin",
            postgresql_ops={"document": "jsonb_path_ops"},
        ),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    version: Mapped[int] = mapped_column(server_default=text("0"))
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SettingsChangeRow(CatalogModel):
    """One change of a tenant's settings, whole, so that it can be shown and undone."""

    __tablename__ = "settings_change"
    __table_args__ = (CheckConstraint("number > 0", name="number_positive"),)

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str]
    source: Mapped[str | None]
    before: Mapped[dict[str, Any]] = mapped_column(JSONB)
    after: Mapped[dict[str, Any]] = mapped_column(JSONB)
    undoes: Mapped[int | None]


class TenantSecretRow(CatalogModel):
    """A secret that a tenant's settings refer to, sealed by the key port. Old ones stay: an undo may need them."""

    __tablename__ = "tenant_secret"
    __table_args__ = (Index("ix_tenant_secret_tenant_id", "tenant_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"))
    name: Mapped[str]
    sealed: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
