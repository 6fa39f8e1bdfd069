-- Imports by workers. An upload is kept here in chunks until it is planned, so that any worker can read it, and it moves
-- with the tenant and dies with it. Planning reads it once and leaves batches; posting a batch deletes it in the same
-- transaction, which is why no row is lost or doubled, whoever is killed when.
ALTER TABLE import_run
    ADD COLUMN queued           boolean NOT NULL DEFAULT false,
    ADD COLUMN rows_total       bigint,
    ADD COLUMN rows_before      bigint  NOT NULL DEFAULT 0,
    ADD COLUMN started_at       timestamptz,
    ADD COLUMN mapping_document jsonb;

-- Made wider: whatever the release before writes is still allowed. A row for each import is a small table.
-- squawk-ignore ban-drop-constraint
ALTER TABLE import_run DROP CONSTRAINT ck_import_run_state_known;
ALTER TABLE import_run ADD CONSTRAINT ck_import_run_state_known
    CHECK (state IN ('pending', 'running', 'done', 'failed', 'cancelled')) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE import_run VALIDATE CONSTRAINT ck_import_run_state_known;
ALTER TABLE import_run ADD CONSTRAINT ck_import_run_over_is_finished
    CHECK ((state IN ('done', 'cancelled')) = (finished_at IS NOT NULL)) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE import_run VALIDATE CONSTRAINT ck_import_run_over_is_finished;
ALTER TABLE import_run ADD CONSTRAINT ck_import_run_queued_has_mapping
    CHECK (NOT queued OR mapping_document IS NOT NULL) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE import_run VALIDATE CONSTRAINT ck_import_run_queued_has_mapping;

-- The file as it was sent, packed or not.
CREATE TABLE import_chunk (
    tenant_id uuid   NOT NULL,
    id        uuid   NOT NULL DEFAULT strata.uuidv7(),
    run_id    uuid   NOT NULL,
    number    bigint NOT NULL,
    content   bytea  NOT NULL,
    CONSTRAINT pk_import_chunk PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_import_chunk_tenant_id_run_id_number UNIQUE (tenant_id, run_id, number),
    CONSTRAINT fk_import_chunk_tenant_id_run_id FOREIGN KEY (tenant_id, run_id)
        REFERENCES import_run (tenant_id, id) ON DELETE CASCADE
);

-- What is still to be posted, in order of `number`.
CREATE TABLE import_batch (
    tenant_id uuid   NOT NULL,
    id        uuid   NOT NULL DEFAULT strata.uuidv7(),
    run_id    uuid   NOT NULL,
    number    bigint NOT NULL,
    content   bytea  NOT NULL,
    CONSTRAINT pk_import_batch PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_import_batch_tenant_id_run_id_number UNIQUE (tenant_id, run_id, number),
    CONSTRAINT fk_import_batch_tenant_id_run_id FOREIGN KEY (tenant_id, run_id)
        REFERENCES import_run (tenant_id, id) ON DELETE CASCADE
);

SELECT strata.secure('import_chunk');
SELECT strata.secure('import_batch');
