"""Waves of moves: which tenants, at what pace, and what became of each beginning."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision: str | None = "0008"

STATES = ("running", "paused", "stopped", "cancelled", "finished")
ORIGINS = ("named", "plan", "cell", "cell-drain", "server-drain")
MEMBER_STATES = ("waiting", "begun", "refused", "skipped", "dropped")
TIERS = ("shared", "schema", "dedicated")


def _known(table: str, column: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=op.f(f"ck_{table}_{column}_known"))


def upgrade() -> None:
    op.create_table(
        "wave",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'running'"), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("parallel", sa.Integer(), nullable=False),
        sa.Column("max_failures", sa.Integer(), nullable=False),
        sa.Column("forgiven", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("retention_s", sa.Integer(), nullable=False),
        sa.Column("window_begins", sa.Time(), nullable=True),
        sa.Column("window_ends", sa.Time(), nullable=True),
        sa.Column("window_zone", sa.Text(), nullable=True),
        sa.Column("waiting", sa.Text(), nullable=True),
        sa.Column("driver", sa.Text(), nullable=True),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_by", sa.Text(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        _known("wave", "state", STATES),
        _known("wave", "origin", ORIGINS),
        sa.CheckConstraint("parallel > 0 AND max_failures > 0 AND retention_s >= 0", name=op.f("ck_wave_sensible")),
        sa.CheckConstraint(
            "(window_begins IS NULL) = (window_zone IS NULL) AND (window_ends IS NULL) = (window_zone IS NULL)",
            name=op.f("ck_wave_window_whole"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wave")),
    )
    op.create_table(
        "wave_member",
        sa.Column("wave_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default=sa.text("'waiting'"), nullable=False),
        sa.Column("from_cell", sa.Text(), nullable=False),
        sa.Column("leaves", sa.Boolean(), nullable=False),
        sa.Column("to_tier", sa.Text(), nullable=False),
        sa.Column("to_cell", sa.Text(), nullable=True),
        sa.Column("to_server", sa.Text(), nullable=True),
        sa.Column("move_id", sa.Uuid(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        _known("wave_member", "state", MEMBER_STATES),
        _known("wave_member", "to_tier", TIERS),
        sa.CheckConstraint("(state = 'begun') = (move_id IS NOT NULL)", name=op.f("ck_wave_member_begun_with_a_move")),
        sa.ForeignKeyConstraint(["move_id"], ["move.id"], name=op.f("fk_wave_member_move_id")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["tenant.id"], name=op.f("fk_wave_member_tenant_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["wave_id"], ["wave.id"], name=op.f("fk_wave_member_wave_id")),
        sa.PrimaryKeyConstraint("wave_id", "tenant_id", name=op.f("pk_wave_member")),
    )
    op.create_index("ix_wave_member_wave_id_position", "wave_member", ["wave_id", "position"])
    op.create_index("ix_wave_member_move_id", "wave_member", ["move_id"])
    op.create_index("ix_wave_member_tenant_id", "wave_member", ["tenant_id"])


def downgrade() -> None:
    op.drop_table("wave_member")
    op.drop_table("wave")
