-- The tables of the inventory, made in whatever schema leads the search_path; the same on every tier.
-- Unqualified on purpose. No percent sign and no colon before a word: Alembic passes this text through SQLAlchemy.
--
-- Codes that people scan (sku, bin, warehouse, zone) are COLLATE "C": exact, and in the same order in every database
-- whatever its locale, so that a cursor means the same before and after a move.

CREATE TABLE product (
    tenant_id     uuid        NOT NULL,
    id            uuid        NOT NULL DEFAULT strata.uuidv7(),
    sku           text        COLLATE "C" NOT NULL,
    name          text        NOT NULL,
    barcode       text        COLLATE "C",
    unit          text        NOT NULL DEFAULT 'each',
    weight_grams  bigint,
    attributes    jsonb       NOT NULL DEFAULT '{}',
    expiry_policy text        NOT NULL DEFAULT 'none',
    active        boolean     NOT NULL DEFAULT true,
    version       bigint      NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_product PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_product_tenant_id_sku UNIQUE (tenant_id, sku),
    CONSTRAINT ck_product_sku_trimmed CHECK (sku = btrim(sku) AND char_length(sku) BETWEEN 1 AND 64),
    CONSTRAINT ck_product_name_present CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT ck_product_barcode_size CHECK (char_length(barcode) BETWEEN 1 AND 64),
    CONSTRAINT ck_product_unit_size CHECK (char_length(unit) BETWEEN 1 AND 16),
    CONSTRAINT ck_product_weight_not_negative CHECK (weight_grams >= 0),
    CONSTRAINT ck_product_attributes_object CHECK (jsonb_typeof(attributes) = 'object'),
    CONSTRAINT ck_product_expiry_policy_known CHECK (expiry_policy IN ('none', 'optional', 'required')),
    CONSTRAINT ck_product_version_positive CHECK (version > 0)
);
CREATE INDEX ix_product_tenant_id_barcode ON product (tenant_id, barcode) WHERE barcode IS NOT NULL;

CREATE TABLE warehouse (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL DEFAULT strata.uuidv7(),
    code       text        COLLATE "C" NOT NULL,
    name       text        NOT NULL,
    active     boolean     NOT NULL DEFAULT true,
    version    bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_warehouse PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_warehouse_tenant_id_code UNIQUE (tenant_id, code),
    CONSTRAINT ck_warehouse_code_trimmed CHECK (code = btrim(code) AND char_length(code) BETWEEN 1 AND 32),
    CONSTRAINT ck_warehouse_name_present CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT ck_warehouse_version_positive CHECK (version > 0)
);

CREATE TABLE zone (
    tenant_id    uuid        NOT NULL,
    id           uuid        NOT NULL DEFAULT strata.uuidv7(),
    warehouse_id uuid        NOT NULL,
    code         text        COLLATE "C" NOT NULL,
    name         text        NOT NULL,
    active       boolean     NOT NULL DEFAULT true,
    version      bigint      NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_zone PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_zone_tenant_id_warehouse_id_code UNIQUE (tenant_id, warehouse_id, code),
    CONSTRAINT fk_zone_tenant_id_warehouse_id FOREIGN KEY (tenant_id, warehouse_id) REFERENCES warehouse (tenant_id, id),
    CONSTRAINT ck_zone_code_trimmed CHECK (code = btrim(code) AND char_length(code) BETWEEN 1 AND 32),
    CONSTRAINT ck_zone_name_present CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT ck_zone_version_positive CHECK (version > 0)
);

-- A bin's code is unique in the whole tenant: it is what a scanner reads, and nothing else says which warehouse.
CREATE TABLE bin (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL DEFAULT strata.uuidv7(),
    zone_id    uuid        NOT NULL,
    code       text        COLLATE "C" NOT NULL,
    active     boolean     NOT NULL DEFAULT true,
    version    bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_bin PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_bin_tenant_id_code UNIQUE (tenant_id, code),
    CONSTRAINT fk_bin_tenant_id_zone_id FOREIGN KEY (tenant_id, zone_id) REFERENCES zone (tenant_id, id),
    CONSTRAINT ck_bin_code_trimmed CHECK (code = btrim(code) AND char_length(code) BETWEEN 1 AND 64),
    CONSTRAINT ck_bin_version_positive CHECK (version > 0)
);
CREATE INDEX ix_bin_tenant_id_zone_id ON bin (tenant_id, zone_id);

-- What lies where. `sequence` counts the changes of this balance without a gap; the ledger's unique constraint on it
-- makes a lost or doubled line impossible to store. Numbers stay below 2^53: JSON readers hold no larger integers.
CREATE TABLE stock_balance (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL DEFAULT strata.uuidv7(),
    product_id uuid        NOT NULL,
    bin_id     uuid        NOT NULL,
    batch      text        COLLATE "C" NOT NULL DEFAULT '',
    expires_on date,
    on_hand    bigint      NOT NULL DEFAULT 0,
    sequence   bigint      NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_stock_balance PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_stock_balance_tenant_id_product_id_bin_id_batch UNIQUE (tenant_id, product_id, bin_id, batch),
    CONSTRAINT fk_stock_balance_tenant_id_product_id FOREIGN KEY (tenant_id, product_id) REFERENCES product (tenant_id, id),
    CONSTRAINT fk_stock_balance_tenant_id_bin_id FOREIGN KEY (tenant_id, bin_id) REFERENCES bin (tenant_id, id),
    CONSTRAINT ck_stock_balance_batch_size CHECK (char_length(batch) <= 64),
    CONSTRAINT ck_stock_balance_on_hand_not_negative CHECK (on_hand >= 0 AND on_hand < 9007199254740992),
    CONSTRAINT ck_stock_balance_sequence_not_negative CHECK (sequence >= 0)
) PARTITION BY HASH (tenant_id);
-- The whole key a second time, from the bin's side: whichever of the two a plan takes, it finds one row.
CREATE INDEX ix_stock_balance_tenant_id_bin_id_product_id_batch ON stock_balance (tenant_id, bin_id, product_id, batch);

CREATE TABLE movement (
    tenant_id   uuid        NOT NULL,
    id          uuid        NOT NULL DEFAULT strata.uuidv7(),
    kind        text        NOT NULL,
    reference   text,
    reason      text,
    note        text,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  text        NOT NULL,
    reverses_id uuid,
    CONSTRAINT pk_movement PRIMARY KEY (tenant_id, id),
    CONSTRAINT fk_movement_tenant_id_reverses_id FOREIGN KEY (tenant_id, reverses_id) REFERENCES movement (tenant_id, id),
    CONSTRAINT ck_movement_kind_known
        CHECK (kind IN ('receive', 'transfer', 'pick', 'adjust', 'count', 'reversal')),
    CONSTRAINT ck_movement_reversal_names_its_movement CHECK ((kind = 'reversal') = (reverses_id IS NOT NULL)),
    CONSTRAINT ck_movement_reference_size CHECK (char_length(reference) BETWEEN 1 AND 128),
    CONSTRAINT ck_movement_reason_size CHECK (char_length(reason) BETWEEN 1 AND 64),
    CONSTRAINT ck_movement_note_size CHECK (char_length(note) BETWEEN 1 AND 2000)
);
CREATE UNIQUE INDEX uq_movement_tenant_id_reverses_id ON movement (tenant_id, reverses_id) WHERE reverses_id IS NOT NULL;
CREATE INDEX ix_movement_tenant_id_reference ON movement (tenant_id, reference) WHERE reference IS NOT NULL;

-- Append-only, corrected by reversals. product_id, bin_id and batch repeat the balance's, so that history is read
-- without it. The foreign keys are the two that a movement holds already: its own row and the locked balance;
-- one to product would put a share lock of every picker on one hot row.
CREATE TABLE stock_ledger (
    tenant_id     uuid        NOT NULL,
    id            uuid        NOT NULL DEFAULT strata.uuidv7(),
    movement_id   uuid        NOT NULL,
    balance_id    uuid        NOT NULL,
    product_id    uuid        NOT NULL,
    bin_id        uuid        NOT NULL,
    batch         text        COLLATE "C" NOT NULL,
    quantity      bigint      NOT NULL,
    on_hand_after bigint      NOT NULL,
    sequence      bigint      NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_stock_ledger PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_stock_ledger_tenant_id_balance_id_sequence UNIQUE (tenant_id, balance_id, sequence),
    CONSTRAINT fk_stock_ledger_tenant_id_movement_id FOREIGN KEY (tenant_id, movement_id) REFERENCES movement (tenant_id, id),
    CONSTRAINT fk_stock_ledger_tenant_id_balance_id FOREIGN KEY (tenant_id, balance_id) REFERENCES stock_balance (tenant_id, id),
    CONSTRAINT ck_stock_ledger_quantity_not_zero CHECK (quantity <> 0),
    CONSTRAINT ck_stock_ledger_on_hand_not_negative CHECK (on_hand_after >= 0),
    CONSTRAINT ck_stock_ledger_sequence_positive CHECK (sequence > 0)
) PARTITION BY HASH (tenant_id);
CREATE INDEX ix_stock_ledger_tenant_id_movement_id ON stock_ledger (tenant_id, movement_id);
CREATE INDEX ix_stock_ledger_tenant_id_product_id_id ON stock_ledger (tenant_id, product_id, id);
CREATE INDEX ix_stock_ledger_tenant_id_bin_id_id ON stock_ledger (tenant_id, bin_id, id);

-- The first answer to a request that carried an Idempotency-Key. A row without a response belongs to a transaction
-- that has not ended: nobody else sees it, a second request with the key waits for it. Old rows are found by their
-- id, which begins with the time.
CREATE TABLE idempotency (
    tenant_id    uuid        NOT NULL,
    id           uuid        NOT NULL DEFAULT strata.uuidv7(),
    key          text        COLLATE "C" NOT NULL,
    request_hash bytea       NOT NULL,
    status       smallint,
    response     jsonb,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_idempotency PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_idempotency_tenant_id_key UNIQUE (tenant_id, key),
    CONSTRAINT ck_idempotency_key_size CHECK (char_length(key) BETWEEN 1 AND 255)
);

-- How much of a limit is in use. Raised and lowered in the transaction that makes or retires the thing.
CREATE TABLE quota (
    tenant_id uuid   NOT NULL,
    id        uuid   NOT NULL DEFAULT strata.uuidv7(),
    name      text   COLLATE "C" NOT NULL,
    used      bigint NOT NULL DEFAULT 0,
    CONSTRAINT pk_quota PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_quota_tenant_id_name UNIQUE (tenant_id, name),
    CONSTRAINT ck_quota_used_not_negative CHECK (used >= 0)
);

-- One load of one file through one mapping with some options; the three, and the tenant, are what a run is known by.
-- `checkpoint` is the number of rows of the file whose outcome is committed (in phase `opening`: of products opened).
-- It moves in the transaction that writes their movements and refusals, so a dead run goes on exactly there.
CREATE TABLE import_run (
    tenant_id        uuid        NOT NULL,
    id               uuid        NOT NULL DEFAULT strata.uuidv7(),
    file_name        text        NOT NULL,
    file_digest      bytea       NOT NULL,
    mapping          text        COLLATE "C" NOT NULL,
    options          jsonb       NOT NULL DEFAULT '{}',
    state            text        NOT NULL DEFAULT 'pending',
    phase            text        NOT NULL DEFAULT '',
    checkpoint       bigint      NOT NULL DEFAULT 0,
    rows_read        bigint      NOT NULL DEFAULT 0,
    lines_accepted   bigint      NOT NULL DEFAULT 0,
    lines_refused    bigint      NOT NULL DEFAULT 0,
    products_created bigint      NOT NULL DEFAULT 0,
    movements_posted bigint      NOT NULL DEFAULT 0,
    quantity_sum     bigint      NOT NULL DEFAULT 0,
    opening_sum      bigint      NOT NULL DEFAULT 0,
    failure          text,
    created_by       text        NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz,
    CONSTRAINT pk_import_run PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_import_run_tenant_id_file_digest_mapping_options UNIQUE (tenant_id, file_digest, mapping, options),
    CONSTRAINT ck_import_run_state_known CHECK (state IN ('pending', 'running', 'done', 'failed')),
    CONSTRAINT ck_import_run_options_object CHECK (jsonb_typeof(options) = 'object'),
    CONSTRAINT ck_import_run_checkpoint_not_negative CHECK (checkpoint >= 0)
);

-- A row of the file that was not taken, with the row as it was read, so that it can be mended and sent again.
-- `row_number` is the line of the file at which the row begins; the line with the columns' names is 1.
CREATE TABLE import_refusal (
    tenant_id  uuid   NOT NULL,
    id         uuid   NOT NULL DEFAULT strata.uuidv7(),
    run_id     uuid   NOT NULL,
    row_number bigint NOT NULL,
    code       text   NOT NULL,
    message    text   NOT NULL,
    source     jsonb  NOT NULL,
    CONSTRAINT pk_import_refusal PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_import_refusal_tenant_id_run_id_row_number UNIQUE (tenant_id, run_id, row_number),
    CONSTRAINT fk_import_refusal_tenant_id_run_id FOREIGN KEY (tenant_id, run_id)
        REFERENCES import_run (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT ck_import_refusal_row_number_positive CHECK (row_number > 0)
);

SELECT strata.partition_by_tenant('stock_balance');
SELECT strata.partition_by_tenant('stock_ledger');

SELECT strata.secure('product');
SELECT strata.secure('warehouse');
SELECT strata.secure('zone');
SELECT strata.secure('bin');
SELECT strata.secure('stock_balance');
SELECT strata.secure('movement', append_only => true);
SELECT strata.secure('stock_ledger', append_only => true);
SELECT strata.secure('idempotency');
SELECT strata.secure('quota');
SELECT strata.secure('import_run');
SELECT strata.secure('import_refusal');
