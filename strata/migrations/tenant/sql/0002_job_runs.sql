-- Which work of jobs is done. The mark is written in the transaction that does the work, so both stand or neither; and it
-- lives with the tenant's rows, so that it moves with them.
CREATE TABLE job_run (
    tenant_id uuid        NOT NULL,
    id        uuid        NOT NULL DEFAULT strata.uuidv7(),
    key       text        COLLATE "C" NOT NULL,
    job       text        COLLATE "C" NOT NULL,
    done_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_job_run PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_job_run_tenant_id_key UNIQUE (tenant_id, key),
    CONSTRAINT ck_job_run_key_size CHECK (char_length(key) BETWEEN 1 AND 255)
);
CREATE INDEX ix_job_run_tenant_id_done_at ON job_run (tenant_id, done_at);
-- Keys of some days at most: built within the lock time-out.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX ix_idempotency_tenant_id_created_at ON idempotency (tenant_id, created_at);

SELECT strata.secure('job_run');
