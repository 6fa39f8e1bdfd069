"""Feature flags: documents, segments, overrides of single tenants, history, use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision: str | None = "0010"

_NOW = sa.text("now()")


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=_NOW, nullable=False)


def upgrade() -> None:
    op.create_table(
        "flag_set",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_flag_set_only_one")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flag_set")),
    )
    op.execute("INSERT INTO flag_set (id, version) VALUES (1, 1)")
    op.create_table(
        "flag",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        _moment("created_at"),
        _moment("changed_at"),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_flag")),
    )
    op.create_table(
        "flag_segment",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        _moment("changed_at"),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_flag_segment")),
    )
    op.create_table(
        "flag_override",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("flag", sa.Text(), nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        _moment("set_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["flag"], ["flag.key"], name=op.f("fk_flag_override_flag")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_flag_override_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "flag", name=op.f("pk_flag_override")),
    )
    op.create_index("ix_flag_override_flag", "flag_override", ["flag"])
    op.create_index("ix_flag_override_expires_at", "flag_override", ["expires_at"])
    op.create_table(
        "flag_change",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("before", postgresql.JSONB(), nullable=True),
        sa.Column("after", postgresql.JSONB(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("undoes", sa.Uuid(), nullable=True),
        sa.CheckConstraint("subject IN ('flag', 'segment', 'override')", name=op.f("ck_flag_change_subject_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_flag_change")),
    )
    op.create_index("ix_flag_change_name_id", "flag_change", ["name", "id"])
    op.create_index(
        "uq_flag_change_undoes",
        "flag_change",
        ["undoes"],
        unique=True,
        postgresql_where=sa.text("undoes IS NOT NULL"),
    )
    op.create_table(
        "flag_use",
        sa.Column("flag", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("variant", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evaluations", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("flag", "day", "variant", "reason", name=op.f("pk_flag_use")),
    )
    # Whoever changes a flag: processes must see that theirs are of the past.
    op.execute("""
        CREATE FUNCTION raise_flag_set_version() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE flag_set SET version = version + 1;
            RETURN NULL;
        END $$;
        CREATE TRIGGER flag_version AFTER INSERT OR UPDATE OR DELETE ON flag
            FOR EACH STATEMENT EXECUTE FUNCTION raise_flag_set_version();
        CREATE TRIGGER flag_segment_version AFTER INSERT OR UPDATE OR DELETE ON flag_segment
            FOR EACH STATEMENT EXECUTE FUNCTION raise_flag_set_version();
        CREATE TRIGGER flag_override_version AFTER INSERT OR UPDATE OR DELETE ON flag_override
            FOR EACH ROW EXECUTE FUNCTION touch_tenant();
        CREATE TRIGGER flag_change_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON flag_change
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    """)


def downgrade() -> None:
    for table in ("flag_use", "flag_change", "flag_override", "flag_segment", "flag", "flag_set"):
        op.drop_table(table)
    op.execute("DROP FUNCTION raise_flag_set_version()")
