"""Moves of tenants: phases, attempts, objects made, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision: str | None = "0004"

PHASES = (
    "pending", "preparing", "copying", "catching_up", "verifying", "ready", "cutting_over", "retaining", "completing",
    "completed", "cancelling", "cancelled", "rolling_back", "withdrawing", "rolled_back", "failed",
)  # fmt: skip
WISHES = ("cutover", "rollback", "complete", "cancel", "retry")
TIERS = ("shared", "schema", "dedicated")
KINDS = ("slot", "publication", "origin", "progress", "schema", "rows", "role", "database", "fence")


def _known(table: str, column: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=op.f(f"ck_{table}_{column}_known"))


def upgrade() -> None:
    op.execute("CREATE SEQUENCE move_attempt")
    op.execute("CREATE SEQUENCE placement_epoch START 2")
    op.create_table(
        "move",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("phase", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("failed_in", sa.Text(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=True),
        sa.Column("target_epoch", sa.BigInteger(), nullable=True),
        sa.Column("number", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("source_cell", sa.Text(), nullable=False),
        sa.Column("source_tier", sa.Text(), nullable=False),
        sa.Column("source_schema", sa.Text(), nullable=False),
        sa.Column("source_epoch", sa.BigInteger(), nullable=False),
        sa.Column("target_cell", sa.Text(), nullable=False),
        sa.Column("target_server", sa.Text(), nullable=False),
        sa.Column("target_tier", sa.Text(), nullable=False),
        sa.Column("target_schema", sa.Text(), nullable=False),
        sa.Column("hold", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("retention_s", sa.Integer(), nullable=False),
        sa.Column("retained_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("wish", sa.Text(), nullable=True),
        sa.Column("progress", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("failure", postgresql.JSONB(), nullable=True),
        sa.Column("write_block_ms", sa.Float(), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        _known("move", "phase", PHASES),
        _known("move", "wish", WISHES),
        _known("move", "source_tier", TIERS),
        _known("move", "target_tier", TIERS),
        sa.CheckConstraint("(phase = 'failed') = (failed_in IS NOT NULL)", name=op.f("ck_move_failed_somewhere")),
        sa.CheckConstraint("retention_s >= 0", name=op.f("ck_move_retention_not_negative")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_move_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_move")),
    )
    op.create_index(
        "uq_move_tenant_id_open",
        "move",
        ["tenant_id"],
        unique=True,
        postgresql_where=sa.text("phase NOT IN ('completed', 'cancelled', 'rolled_back')"),
    )
    op.create_index("ix_move_tenant_id_created_at", "move", ["tenant_id", "created_at"], unique=False)
    op.create_table(
        "move_object",
        sa.Column("move_id", sa.Uuid(), nullable=False),
        sa.Column("side", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column(
            "registered_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        _known("move_object", "kind", KINDS),
        _known("move_object", "side", ("source", "target")),
        sa.ForeignKeyConstraint(["move_id"], ["move.id"], name=op.f("fk_move_object_move_id")),
        sa.PrimaryKeyConstraint("move_id", "side", "kind", "name", name=op.f("pk_move_object")),
    )
    op.create_table(
        "move_event",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("move_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.ForeignKeyConstraint(["move_id"], ["move.id"], name=op.f("fk_move_event_move_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_move_event")),
    )
    op.create_index("ix_move_event_move_id_id", "move_event", ["move_id", "id"], unique=False)
    op.execute("""
        CREATE TRIGGER move_event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON move_event
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    """)


def downgrade() -> None:
    op.drop_table("move_event")
    op.drop_table("move_object")
    op.drop_table("move")
    op.execute("DROP SEQUENCE placement_epoch")
    op.execute("DROP SEQUENCE move_attempt")
