"""Standbys that may serve reads; what a cell or server is kept for; plans of moves off what is drained."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    op.create_table(
        "replica",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("server_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dsn_sealed", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["server_id"], ["server.id"], name=op.f("fk_replica_server_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replica")),
        sa.UniqueConstraint("name", name=op.f("uq_replica_name")),
    )
    op.create_index("ix_replica_server_id", "replica", ["server_id"], unique=False)
    for table in ("cell", "server"):
        op.add_column(table, sa.Column("plans", postgresql.ARRAY(sa.Text()), nullable=True))
    op.add_column("server", sa.Column("capacity", sa.Integer(), nullable=True))
    op.create_table(
        "drain",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('server', 'cell')", name=op.f("ck_drain_kind_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drain")),
        sa.UniqueConstraint("kind", "subject", name=op.f("uq_drain_kind_subject")),
    )
    op.create_table(
        "drain_move",
        sa.Column("drain_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("from_cell", sa.Text(), nullable=False),
        sa.Column("to_server", sa.Text(), nullable=True),
        sa.Column("to_cell", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["drain_id"], ["drain.id"], name=op.f("fk_drain_move_drain_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_drain_move_tenant_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("drain_id", "tenant_id", name=op.f("pk_drain_move")),
    )
    op.create_index("ix_drain_move_tenant_id", "drain_move", ["tenant_id"], unique=False)


def downgrade() -> None:
    op.drop_table("drain_move")
    op.drop_table("drain")
    op.drop_column("server", "capacity")
    for table in ("server", "cell"):
        op.drop_column(table, "plans")
    op.drop_table("replica")
