-- Who did what with the tenant's account and master data, when, from where, and how they had proved who they are. Chained
-- by strata.chain_audit; nothing but the ledger itself records movements of stock.
CREATE TABLE audit_entry (
    tenant_id      uuid        NOT NULL,
    id             uuid        NOT NULL DEFAULT strata.uuidv7(),
    sequence       bigint      NOT NULL,
    at             timestamptz NOT NULL DEFAULT now(),
    actor          text        NOT NULL,
    action         text        COLLATE "C" NOT NULL,
    subject        text        NOT NULL,
    source         text,
    authentication text,
    request        text,
    detail         jsonb       NOT NULL DEFAULT '{}',
    previous       bytea       NOT NULL,
    digest         bytea       NOT NULL,
    CONSTRAINT pk_audit_entry PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_audit_entry_tenant_id_sequence UNIQUE (tenant_id, sequence),
    CONSTRAINT ck_audit_entry_sequence_positive CHECK (sequence > 0),
    CONSTRAINT ck_audit_entry_action_size CHECK (char_length(action) BETWEEN 1 AND 64),
    CONSTRAINT ck_audit_entry_detail_object CHECK (jsonb_typeof(detail) = 'object')
);
CREATE INDEX ix_audit_entry_tenant_id_action_sequence ON audit_entry (tenant_id, action, sequence);
CREATE INDEX ix_audit_entry_tenant_id_actor_sequence ON audit_entry (tenant_id, actor, sequence);
CREATE INDEX ix_audit_entry_tenant_id_subject_sequence ON audit_entry (tenant_id, subject, sequence);

CREATE TRIGGER audit_entry_chained BEFORE INSERT ON audit_entry FOR EACH ROW EXECUTE FUNCTION strata.chain_audit();
CREATE TRIGGER audit_entry_kept BEFORE UPDATE OR DELETE ON audit_entry FOR EACH ROW EXECUTE FUNCTION strata.keep_audit();

SELECT strata.secure('audit_entry', append_only => true);
