"""The catalog: servers, cells, tenants, placements, domains, documents of facets, audit, signing keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_tenant_id_at", "audit", ["tenant_id", "at"], unique=False)
    op.create_table(
        "server",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("admin_dsn_sealed", sa.Text(), nullable=False),
        sa.Column("app_role", sa.Text(), nullable=False),
        sa.Column("app_password_sealed", sa.Text(), nullable=False),
        sa.Column("app_address", sa.Text(), nullable=True),
        sa.Column("draining", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server")),
        sa.UniqueConstraint("name", name=op.f("uq_server_name")),
    )
    op.create_table(
        "signing_key",
        sa.Column("kid", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("private_sealed", sa.Text(), nullable=False),
        sa.Column("public_jwk", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("retires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('current', 'previous')", name=op.f("ck_signing_key_state_known")),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_signing_key")),
    )
    op.create_index(
        "uq_signing_key_current", "signing_key", ["state"], unique=True, postgresql_where=sa.text("state = 'current'")
    )
    op.create_table(
        "tenant",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=True),
        sa.Column("parent_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('provisioning', 'active', 'read-only', 'suspended', 'closing', 'closed')",
            name=op.f("ck_tenant_status_known"),
        ),
        sa.ForeignKeyConstraint(["parent_id"], ["tenant.id"], name=op.f("fk_tenant_parent_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant")),
    )
    op.create_index("ix_tenant_parent_id", "tenant", ["parent_id"], unique=False)
    op.create_index(
        "uq_tenant_slug_open", "tenant", ["slug"], unique=True, postgresql_where=sa.text("status <> 'closed'")
    )
    op.create_table(
        "cell",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("server_id", sa.Uuid(), nullable=False),
        sa.Column("database", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("secret_sealed", sa.Text(), nullable=False),
        sa.Column("timeline", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), server_default=sa.text("'building'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("kind IN ('shared', 'dedicated')", name=op.f("ck_cell_kind_known")),
        sa.CheckConstraint("state IN ('building', 'open', 'draining')", name=op.f("ck_cell_state_known")),
        sa.ForeignKeyConstraint(["server_id"], ["server.id"], name=op.f("fk_cell_server_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cell")),
        sa.UniqueConstraint("name", name=op.f("uq_cell_name")),
    )
    op.create_index("ix_cell_server_id", "cell", ["server_id"], unique=False)
    op.create_table(
        "domain",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("hostname", sa.Text(), nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("certificate_status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "certificate_status IN ('pending', 'active', 'expired')", name=op.f("ck_domain_certificate_status_known")
        ),
        sa.CheckConstraint("hostname = lower(hostname)", name=op.f("ck_domain_hostname_lower")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_domain_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_domain")),
        sa.UniqueConstraint("hostname", name=op.f("uq_domain_hostname")),
    )
    op.create_index("ix_domain_tenant_id", "domain", ["tenant_id"], unique=False)
    op.create_table(
        "tenant_document",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("facet", sa.Text(), nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_tenant_document_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "facet", name=op.f("pk_tenant_document")),
    )
    op.create_table(
        "placement",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("cell_id", sa.Uuid(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("schema_name", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("tier IN ('shared', 'schema', 'dedicated')", name=op.f("ck_placement_tier_known")),
        sa.CheckConstraint("epoch > 0", name=op.f("ck_placement_epoch_positive")),
        sa.ForeignKeyConstraint(["cell_id"], ["cell.id"], name=op.f("fk_placement_cell_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_placement_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_placement")),
    )
    op.create_index("ix_placement_cell_id", "placement", ["cell_id"], unique=False)

    # A context is as old as its version says: whatever it shows, a change of it must raise the version, whoever makes it.
    op.execute("""
        CREATE FUNCTION raise_tenant_version() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.version := OLD.version + 1;
            RETURN NEW;
        END $$;
        CREATE TRIGGER tenant_version BEFORE UPDATE ON tenant
            FOR EACH ROW EXECUTE FUNCTION raise_tenant_version();

        CREATE FUNCTION touch_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP <> 'INSERT' THEN
                UPDATE tenant SET version = version WHERE id = OLD.tenant_id;
            END IF;
            IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND NEW.tenant_id <> OLD.tenant_id THEN
                UPDATE tenant SET version = version WHERE id = NEW.tenant_id;
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER placement_version AFTER INSERT OR UPDATE OR DELETE ON placement
            FOR EACH ROW EXECUTE FUNCTION touch_tenant();
        CREATE TRIGGER domain_version AFTER INSERT OR UPDATE OR DELETE ON domain
            FOR EACH ROW EXECUTE FUNCTION touch_tenant();
        CREATE TRIGGER tenant_document_version AFTER INSERT OR UPDATE OR DELETE ON tenant_document
            FOR EACH ROW EXECUTE FUNCTION touch_tenant();
    """)
    op.execute("""
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'rows of % are only ever added', TG_TABLE_NAME;
        END $$;
        CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
    """)


def downgrade() -> None:
    message = "the catalog's first revision is not undone: drop the database instead"
    raise RuntimeError(message)
