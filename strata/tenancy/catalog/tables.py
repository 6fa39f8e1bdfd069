"""The catalog: the one truth about who exists and who lives where."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from strata.platform.ids import new_id
from strata.tenancy.model import CellKind, CellState, Holder, TenantStatus, Tier, UpgradeTroubleState

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class CertificateStatus(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    EXPIRED = "expired"


def one_of(column: str, states: type[StrEnum]) -> CheckConstraint:
    """A CHECK that holds a text column to an enum: enum types of PostgreSQL cannot be altered within a transaction."""
    values = ", ".join(f"'{state.value}'" for state in states)
    return CheckConstraint(f"{column} IN ({values})", name=f"{column}_known")


class CatalogModel(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: DateTime(timezone=True), str: Text, int: BigInteger}  # noqa: RUF012 - SQLAlchemy reads it


class ServerRow(CatalogModel):
    """A PostgreSQL cluster: holds cells, and is where dedicated databases are made."""

    __tablename__ = "server"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    region: Mapped[str]
    admin_dsn_sealed: Mapped[str]
    app_role: Mapped[str]
    app_password_sealed: Mapped[str]
    app_address: Mapped[str | None]
    """host:port of the pooler tenant work goes through; None: straight to the server of the administrator's DSN."""
    draining: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("false"))
    capacity: Mapped[int | None] = mapped_column(Integer)
    """The most dedicated databases it takes; None: no limit."""
    plans: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    """Dedicated databases are made here for tenants of these plans alone; None: for any."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CellRow(CatalogModel):
    """A database on a server that can hold tenants."""

    __tablename__ = "cell"
    __table_args__ = (one_of("kind", CellKind), one_of("state", CellState), Index("ix_cell_server_id", "server_id"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(unique=True)
    server_id: Mapped[UUID] = mapped_column(ForeignKey("server.id"))
    database: Mapped[str]
    kind: Mapped[str]
    region: Mapped[str]
    capacity: Mapped[int] = mapped_column(Integer)
    secret_sealed: Mapped[str]
    timeline: Mapped[str | None]
    """The one approved; None until the cell has been built."""
    state: Mapped[str] = mapped_column(server_default=text("'building'"))
    plans: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    """Kept for tenants of these plans; None: for any."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ReplicaRow(CatalogModel):
    """A registration of a standby of a server.

    Another address is another registration, with another id: what is leased to an id is leased to one standby.
    """

    __tablename__ = "replica"
    __table_args__ = (Index("ix_replica_server_id", "server_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    server_id: Mapped[UUID] = mapped_column(ForeignKey("server.id"))
    name: Mapped[str] = mapped_column(unique=True)
    dsn_sealed: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TenantRow(CatalogModel):
    __tablename__ = "tenant"
    __table_args__ = (
        one_of("status", TenantStatus),
        # A closed tenant keeps its row for the audit, and gives its slug back.
        Index("uq_tenant_slug_open", "slug", unique=True, postgresql_where=text("status <> 'closed'")),
        Index("ix_tenant_parent_id", "parent_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    slug: Mapped[str]
    name: Mapped[str]
    status: Mapped[str]
    status_reason: Mapped[str | None]
    plan: Mapped[str]
    plan_version: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    """The terms it bought (plans.toml); a newer version of the plan is not its own until staff move it."""
    region: Mapped[str | None]
    """Pinned to this region; None: anywhere."""
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("tenant.id"))
    version: Mapped[int] = mapped_column(server_default=text("1"))
    """Rises with every change of anything a TenantContext shows (triggers see to it)."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    closed_at: Mapped[datetime | None]


class PlacementRow(CatalogModel):
    __tablename__ = "placement"
    __table_args__ = (
        one_of("tier", Tier),
        CheckConstraint("epoch > 0", name="epoch_positive"),
        Index("ix_placement_cell_id", "cell_id"),
    )

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    cell_id: Mapped[UUID] = mapped_column(ForeignKey("cell.id"))
    tier: Mapped[str]
    schema_name: Mapped[str]
    epoch: Mapped[int]


class DrainKind(StrEnum):
    SERVER = "server"
    CELL = "cell"


class DrainRow(CatalogModel):
    """The newest plan of moves off a server or cell that is being drained."""

    __tablename__ = "drain"
    __table_args__ = (one_of("kind", DrainKind), UniqueConstraint("kind", "subject", name="uq_drain_kind_subject"))

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str]
    subject: Mapped[str]
    actor: Mapped[str]
    planned_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DrainMoveRow(CatalogModel):
    """A tenant to be moved. Both destinations None: nothing has room, and `reason` says what to do."""

    __tablename__ = "drain_move"
    __table_args__ = (Index("ix_drain_move_tenant_id", "tenant_id"),)

    drain_id: Mapped[UUID] = mapped_column(ForeignKey("drain.id", ondelete="CASCADE"), primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer)
    from_cell: Mapped[str]
    to_server: Mapped[str | None]
    to_cell: Mapped[str | None]
    """None with a server: a dedicated database is made on it."""
    reason: Mapped[str]


class DomainRow(CatalogModel):
    """A host name of the tenant's own; routed only once verified and while its certificate is active."""

    __tablename__ = "domain"
    __table_args__ = (
        one_of("certificate_status", CertificateStatus),
        CheckConstraint("hostname = lower(hostname)", name="hostname_lower"),
        Index("ix_domain_tenant_id", "tenant_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"))
    hostname: Mapped[str] = mapped_column(unique=True)
    verified_at: Mapped[datetime | None]
    certificate_status: Mapped[str] = mapped_column(server_default=text("'pending'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class TenantDocumentRow(CatalogModel):
    """What a facet keeps for a tenant, sparse: defaults are filled in on read."""

    __tablename__ = "tenant_document"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    facet: Mapped[str] = mapped_column(primary_key=True)
    document: Mapped[dict[str, Any]] = mapped_column(JSONB)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class EntitlementRow(CatalogModel):
    """What was agreed with a tenant beside its plan (tenancy/entitlements); what has ended stays, with who ended it."""

    __tablename__ = "entitlement"
    __table_args__ = (
        CheckConstraint("kind IN ('add-on', 'feature', 'limit')", name="kind_known"),
        CheckConstraint("amount >= 0", name="amount_not_negative"),
        CheckConstraint("kind <> 'add-on' OR amount > 0", name="pieces_counted"),
        CheckConstraint("given OR kind = 'feature'", name="withheld_features_alone"),
        Index(
            "uq_entitlement_current",
            "tenant_id",
            "kind",
            "name",
            unique=True,
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("ix_entitlement_expiring", "expires_at", postgresql_where=text("ended_at IS NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"))
    kind: Mapped[str]
    name: Mapped[str]
    amount: Mapped[int | None]
    given: Mapped[bool] = mapped_column(Boolean, default=True, server_default=text("true"))
    reason: Mapped[str]
    granted_by: Mapped[str]
    granted_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    ended_by: Mapped[str | None]
    ended_why: Mapped[str | None]


class AuditRow(CatalogModel):
    """What staff and the platform did; rows are only ever added (a trigger refuses the rest), and linked at COMMIT."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_tenant_id_at", "tenant_id", "at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    actor: Mapped[str]
    action: Mapped[str]
    tenant_id: Mapped[UUID | None]
    subject: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    source: Mapped[str | None]
    authentication: Mapped[str | None]
    request: Mapped[str | None]


class AuditLinkRow(CatalogModel):
    """The place of an audit row in the chain, written by a trigger when the row's transaction commits."""

    __tablename__ = "audit_link"
    __table_args__ = (CheckConstraint("sequence > 0", name="sequence_positive"), UniqueConstraint("entry_id"))

    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    entry_id: Mapped[UUID] = mapped_column(ForeignKey("audit.id"))
    previous: Mapped[bytes] = mapped_column(LargeBinary)
    digest: Mapped[bytes] = mapped_column(LargeBinary)


class AuditAnchorRow(CatalogModel):
    """How the chain of a tenant's audit stood at one time: rows cut off its end since are missed."""

    __tablename__ = "audit_anchor"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenant.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class SigningKeyState(StrEnum):
    CURRENT = "current"
    """Signs, and verifies."""
    PREVIOUS = "previous"
    """Verifies until `retires_at`, when the last token that it signed has expired."""


class SigningKeyRow(CatalogModel):
    """Keys that sign access tokens; the private half is sealed by the key port."""

    __tablename__ = "signing_key"
    __table_args__ = (
        one_of("state", SigningKeyState),
        Index("uq_signing_key_current", "state", unique=True, postgresql_where=text("state = 'current'")),
    )

    kid: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    private_sealed: Mapped[str]
    public_jwk: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    retires_at: Mapped[datetime | None]


class ClaimRow(CatalogModel):
    """A tenant or a schema that a move, an upgrade or a removal is working on: see provisioning/exclusion.py."""

    __tablename__ = "claim"
    __table_args__ = (one_of("holder", Holder), Index("ix_claim_reference", "reference"))

    subject: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(primary_key=True)
    claimed_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class SpareRow(CatalogModel):
    """A schema made ready for a tenant to come: see provisioning/stock.py."""

    __tablename__ = "spare"
    __table_args__ = (Index("ix_spare_cell_id", "cell_id"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    cell_id: Mapped[UUID] = mapped_column(ForeignKey("cell.id"))
    ready: Mapped[bool] = mapped_column(Boolean, default=False, server_default=text("false"))
    made_at: Mapped[datetime] = mapped_column(server_default=func.now())


class UpgradeTroubleRow(CatalogModel):
    """A schema that the last upgrade did not bring to head, and why. What a schema has stands in its cell's ledger."""

    __tablename__ = "upgrade_trouble"
    __table_args__ = (one_of("state", UpgradeTroubleState), CheckConstraint("attempts >= 0", name="attempts_counted"))

    cell: Mapped[str] = mapped_column(primary_key=True)
    schema_name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    revision: Mapped[str]
    """The one that it was to get."""
    attempts: Mapped[int] = mapped_column(Integer)
    """In all runs since it was last well."""
    error: Mapped[str]
    first_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_at: Mapped[datetime] = mapped_column(server_default=func.now())
