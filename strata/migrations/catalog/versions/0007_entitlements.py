"""Entitlements with their sources; the version of its plan that a tenant bought.

What stood in the documents `features` and `limits` becomes overrides. The documents stay: the release before this one
goes on reading them while the two run side by side.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision: str | None = "0006"


def upgrade() -> None:
    op.add_column("tenant", sa.Column("plan_version", sa.Integer(), server_default=sa.text("1"), nullable=False))
    op.create_table(
        "entitlement",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("given", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("granted_by", sa.Text(), nullable=False),
        sa.Column("granted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_by", sa.Text(), nullable=True),
        sa.Column("ended_why", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('add-on', 'feature', 'limit')", name=op.f("ck_entitlement_kind_known")),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_entitlement_amount_not_negative")),
        sa.CheckConstraint("kind <> 'add-on' OR amount > 0", name=op.f("ck_entitlement_pieces_counted")),
        sa.CheckConstraint("given OR kind = 'feature'", name=op.f("ck_entitlement_withheld_features_alone")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_entitlement_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entitlement")),
    )
    current = sa.text("ended_at IS NULL")
    op.create_index(
        "uq_entitlement_current", "entitlement", ["tenant_id", "kind", "name"], unique=True, postgresql_where=current
    )
    op.create_index("ix_entitlement_expiring", "entitlement", ["expires_at"], postgresql_where=current)
    op.execute("""
        CREATE TRIGGER entitlement_version AFTER INSERT OR UPDATE OR DELETE ON entitlement
            FOR EACH ROW EXECUTE FUNCTION touch_tenant();
    """)
    op.execute("""
        INSERT INTO entitlement (id, tenant_id, kind, name, given, reason, granted_by, granted_at)
        SELECT gen_random_uuid(), d.tenant_id, 'feature', f.name, member.given, 'agreed before entitlements were kept',
            'system', d.updated_at
        FROM tenant_document d
        CROSS JOIN (VALUES ('on', true), ('off', false)) member (name, given)
        CROSS JOIN LATERAL jsonb_array_elements_text(
            CASE jsonb_typeof(d.document -> member.name) WHEN 'array' THEN d.document -> member.name ELSE '[]' END
        ) f (name)
        WHERE d.facet = 'features'
            -- Off won where a document said both.
            AND NOT (member.given AND coalesce(d.document -> 'off', '[]') ? f.name)
        ON CONFLICT DO NOTHING;
        INSERT INTO entitlement (id, tenant_id, kind, name, amount, reason, granted_by, granted_at)
        SELECT gen_random_uuid(), d.tenant_id, 'limit', l.key,
            CASE jsonb_typeof(l.value) WHEN 'number' THEN (l.value #>> '{}')::bigint END,
            'agreed before entitlements were kept', 'system', d.updated_at
        FROM tenant_document d
        CROSS JOIN LATERAL jsonb_each(d.document) l
        WHERE d.facet = 'limits' AND jsonb_typeof(l.value) IN ('number', 'null');
    """)


def downgrade() -> None:
    op.drop_table("entitlement")
    op.drop_column("tenant", "plan_version")
