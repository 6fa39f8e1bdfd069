"""Noisy neighbours: findings, advice, what each process sees, slow statements."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision: str | None = "0012"


def upgrade() -> None:
    op.create_table(
        "neighbour_finding",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("cell", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("evidence", postgresql.JSONB(), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('noisy', 'hurts-others', 'suffers-alone', 'everyone')",
            name=op.f("ck_neighbour_finding_verdict_known"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_neighbour_finding_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_neighbour_finding")),
    )
    op.create_index(
        "uq_neighbour_finding_open",
        "neighbour_finding",
        ["cell", "verdict", "tenant_id"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
        postgresql_nulls_not_distinct=True,
    )
    op.create_index("ix_neighbour_finding_began_at", "neighbour_finding", ["began_at"])
    op.create_table(
        "neighbour_advice",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("action", postgresql.JSONB(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'proposed'"), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('throttle', 'move', 'index')", name=op.f("ck_neighbour_advice_kind_known")),
        sa.CheckConstraint(
            "state IN ('proposed', 'carried-out', 'dismissed')", name=op.f("ck_neighbour_advice_state_known")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_neighbour_advice_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_neighbour_advice")),
    )
    op.create_index(
        "uq_neighbour_advice_proposed",
        "neighbour_advice",
        ["tenant_id", "kind", "subject"],
        unique=True,
        postgresql_where=sa.text("state = 'proposed'"),
    )
    op.create_table(
        "slow_statement",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("total_ms", sa.BigInteger(), nullable=False),
        sa.Column("rows_touched", sa.BigInteger(), nullable=False),
        sa.Column("slowest_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("explained_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("plan", postgresql.JSONB(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_slow_statement_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "fingerprint", name=op.f("pk_slow_statement")),
    )
    op.create_index("ix_slow_statement_last_at", "slow_statement", ["last_at"])
    op.create_table(
        "neighbour_load",
        sa.Column("cell", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("connections", sa.Double(), nullable=False),
        sa.Column("statements", sa.Double(), nullable=False),
        sa.Column("rows_touched", sa.Double(), nullable=False),
        sa.Column("waits_s", sa.Double(), nullable=False),
        sa.Column("cpu_estimate", sa.Double(), nullable=False),
        sa.Column("memory_estimate_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_neighbour_load_tenant_id")),
        sa.PrimaryKeyConstraint("cell", "tenant_id", "process", name=op.f("pk_neighbour_load")),
    )


def downgrade() -> None:
    for table in ("neighbour_load", "slow_statement", "neighbour_advice", "neighbour_finding"):
        op.drop_table(table)
