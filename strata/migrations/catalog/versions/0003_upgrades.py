"""Who is changing what (claims), which schemas the last upgrade did not bring to head, and schemas kept ready."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"


def upgrade() -> None:
    op.create_table(
        "claim",
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column(
            "claimed_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint("holder IN ('move', 'upgrade', 'removal')", name=op.f("ck_claim_holder_known")),
        sa.PrimaryKeyConstraint("subject", "holder", "reference", name=op.f("pk_claim")),
    )
    op.create_index("ix_claim_reference", "claim", ["reference"], unique=False)
    op.create_table(
        "upgrade_trouble",
        sa.Column("cell", sa.Text(), nullable=False),
        sa.Column("schema_name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("state IN ('failed', 'deferred')", name=op.f("ck_upgrade_trouble_state_known")),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_upgrade_trouble_attempts_counted")),
        sa.PrimaryKeyConstraint("cell", "schema_name", name=op.f("pk_upgrade_trouble")),
    )
    op.create_table(
        "spare",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("cell_id", sa.Uuid(), nullable=False),
        sa.Column("ready", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["cell_id"], ["cell.id"], name=op.f("fk_spare_cell_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_spare")),
    )
    op.create_index("ix_spare_cell_id", "spare", ["cell_id"], unique=False)
