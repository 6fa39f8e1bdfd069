"""Usage counters, and which outboxes tenants have left behind in cells they moved away from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision: str | None = "0005"


def upgrade() -> None:
    op.create_table(
        "usage_counter",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("period ~ '^[0-9]{4}-[0-9]{2}$'", name=op.f("ck_usage_counter_period_month")),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_usage_counter_amount_not_negative")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_usage_counter_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "period", "meter", name=op.f("pk_usage_counter")),
    )
    op.create_table(
        "usage_mark",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_usage_mark_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_usage_mark")),
    )
    op.create_table(
        "usage_replay",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_usage_replay_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "event_id", name=op.f("pk_usage_replay")),
    )
    op.create_table(
        "outbox_remainder",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("cell_id", sa.Uuid(), nullable=False),
        sa.Column("left_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["cell_id"], ["cell.id"], name=op.f("fk_outbox_remainder_cell_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_outbox_remainder_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "epoch", name=op.f("pk_outbox_remainder")),
    )
    op.create_index("ix_outbox_remainder_cell_id", "outbox_remainder", ["cell_id"])
    # In the flip's own transaction, whoever makes it: what the tenant writes in its new home is delivered only after what
    # it had written in the old one. A tenant that is gone has nothing left to deliver.
    op.execute("""
        CREATE FUNCTION remember_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' THEN
                DELETE FROM outbox_remainder WHERE tenant_id = OLD.tenant_id;
            ELSIF NEW.cell_id <> OLD.cell_id THEN
                INSERT INTO outbox_remainder (tenant_id, epoch, cell_id) VALUES (OLD.tenant_id, OLD.epoch, OLD.cell_id);
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER placement_outbox AFTER UPDATE OR DELETE ON placement
            FOR EACH ROW EXECUTE FUNCTION remember_outbox();
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER placement_outbox ON placement; DROP FUNCTION remember_outbox()")
    for table in ("outbox_remainder", "usage_replay", "usage_mark", "usage_counter"):
        op.drop_table(table)
