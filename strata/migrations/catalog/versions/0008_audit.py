"""The catalog's audit: chained, with origin and authentication; and anchors of the tenants' chains."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision: str | None = "0007"

_COLUMNS = ("source", "authentication", "request")


def upgrade() -> None:
    for column in _COLUMNS:
        op.add_column("audit", sa.Column(column, sa.Text(), nullable=True))
    op.create_table(
        "audit_link",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("sequence > 0", name=op.f("ck_audit_link_sequence_positive")),
        sa.ForeignKeyConstraint(["entry_id"], ["audit.id"], name=op.f("fk_audit_link_entry_id")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_link")),
        sa.UniqueConstraint("entry_id", name=op.f("uq_audit_link_entry_id")),
    )
    op.create_table(
        "audit_anchor",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_audit_anchor_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "sequence", name=op.f("pk_audit_anchor")),
    )
    # The same spelling as in the cells (strata/migrations/cell/sql/0005_audit.sql).
    op.execute(r"""
        CREATE FUNCTION canonical_json(p_value jsonb) RETURNS text
            LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
        BEGIN
            RETURN CASE jsonb_typeof(p_value)
                WHEN 'object' THEN '{' || coalesce((
                    SELECT string_agg(to_json(m.key)::text || ':' || canonical_json(m.value), ',' ORDER BY m.key COLLATE "C")
                    FROM jsonb_each(p_value) AS m), '') || '}'
                WHEN 'array' THEN '[' || coalesce((
                    SELECT string_agg(canonical_json(e.value), ',' ORDER BY e.number)
                    FROM jsonb_array_elements(p_value) WITH ORDINALITY AS e (value, number)), '') || ']'
                ELSE p_value::text
            END;
        END $$;

        CREATE FUNCTION link_audit(p_entry audit) RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            v_sequence bigint;
            v_previous bytea;
        BEGIN
            SELECT l.sequence, l.digest INTO v_sequence, v_previous
              FROM audit_link AS l ORDER BY l.sequence DESC LIMIT 1;
            v_sequence := coalesce(v_sequence, 0) + 1;
            v_previous := coalesce(v_previous, decode(repeat('00', 32), 'hex'));
            INSERT INTO audit_link (sequence, entry_id, previous, digest)
            VALUES (v_sequence, p_entry.id, v_previous,
                sha256(v_previous || convert_to(canonical_json(jsonb_build_object(
                    'action', p_entry.action, 'actor', p_entry.actor,
                    'at', to_char(p_entry.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                    'authentication', p_entry.authentication, 'detail', p_entry.detail, 'id', p_entry.id,
                    'request', p_entry.request, 'sequence', v_sequence, 'source', p_entry.source,
                    'subject', p_entry.subject, 'tenant_id', p_entry.tenant_id)), 'UTF8')));
        END $$;

        CREATE FUNCTION chain_audit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            -- One key for all, and taken at COMMIT: nobody holds it and waits for something else.
            PERFORM pg_advisory_xact_lock(7527);
            PERFORM link_audit(NEW);
            RETURN NULL;
        END $$;

        DO $$
        DECLARE
            v_entry audit;
        BEGIN
            FOR v_entry IN SELECT * FROM audit ORDER BY at, id LOOP
                PERFORM link_audit(v_entry);
            END LOOP;
        END $$;

        CREATE CONSTRAINT TRIGGER audit_chained AFTER INSERT ON audit DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION chain_audit();
        CREATE TRIGGER audit_link_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_link
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
        CREATE TRIGGER audit_anchor_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_anchor
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER audit_chained ON audit; DROP FUNCTION chain_audit(); DROP FUNCTION link_audit(audit)")
    op.drop_table("audit_anchor")
    op.drop_table("audit_link")
    op.execute("DROP FUNCTION canonical_json(jsonb)")
    for column in _COLUMNS:
        op.drop_column("audit", column)
