"""Usage by day, active users, and which batches of it have been counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision: str | None = "0009"


def upgrade() -> None:
    op.create_table(
        "usage_day",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_usage_day_amount_not_negative")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_usage_day_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "day", "meter", name=op.f("pk_usage_day")),
    )
    op.create_index("ix_usage_day_meter_day", "usage_day", ["meter", "day"])
    op.create_table(
        "usage_user",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_usage_user_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "period", "digest", name=op.f("pk_usage_user")),
    )
    op.create_table(
        "usage_batch",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_batch")),
    )
    op.create_index("ix_usage_batch_counted_at", "usage_batch", ["counted_at"])


def downgrade() -> None:
    for table in ("usage_batch", "usage_user", "usage_day"):
        op.drop_table(table)
