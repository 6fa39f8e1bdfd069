"""Settings of tenants: a document each, its history, and the secrets it refers to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision: str | None = "0011"


def upgrade() -> None:
    op.create_table(
        "tenant_settings",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("document", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("version >= 0", name=op.f("ck_tenant_settings_version_not_negative")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_tenant_settings_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenant_settings")),
    )
    op.create_index(
        "ix_tenant_settings_document",
        "tenant_settings",
        ["document"],
        postgresql_using="gin",
        postgresql_ops={"document": "jsonb_path_ops"},
    )
    op.create_table(
        "settings_change",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("before", postgresql.JSONB(), nullable=False),
        sa.Column("after", postgresql.JSONB(), nullable=False),
        sa.Column("undoes", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("number > 0", name=op.f("ck_settings_change_number_positive")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_settings_change_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "number", name=op.f("pk_settings_change")),
    )
    op.create_table(
        "tenant_secret",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sealed", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_tenant_secret_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant_secret")),
    )
    op.create_index("ix_tenant_secret_tenant_id", "tenant_secret", ["tenant_id"], unique=False)
    # What the release before kept as a facet's document; it stays there for that release until it is gone.
    op.execute("""
        INSERT INTO tenant_settings (tenant_id, document, version)
        SELECT d.tenant_id, jsonb_build_object('regional', d.document), 0
          FROM tenant_document AS d WHERE d.facet = 'settings' AND d.document <> '{}'::jsonb;

        CREATE TRIGGER tenant_settings_version AFTER INSERT OR UPDATE OR DELETE ON tenant_settings
            FOR EACH ROW EXECUTE FUNCTION touch_tenant();
    """)


def downgrade() -> None:
    for table in ("tenant_secret", "settings_change", "tenant_settings"):
        op.drop_table(table)
