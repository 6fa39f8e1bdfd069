-- What consumers of events keep in the tenant's own tables, so that it moves with the tenant.

-- How far a consumer has come, raised in the transaction of its effect: an event at or below it has been dealt with.
CREATE TABLE event_mark (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL DEFAULT strata.uuidv7(),
    consumer   text        COLLATE "C" NOT NULL,
    epoch      bigint      NOT NULL,
    position   bigint      NOT NULL,
    event_id   uuid        NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_event_mark PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_event_mark_tenant_id_consumer UNIQUE (tenant_id, consumer),
    CONSTRAINT ck_event_mark_consumer_size CHECK (char_length(consumer) BETWEEN 1 AND 64)
);

-- Events that a consumer could not deal with, kept whole until a person has it tried again or gives it up.
CREATE TABLE event_dead_letter (
    tenant_id      uuid        NOT NULL,
    id             uuid        NOT NULL DEFAULT strata.uuidv7(),
    consumer       text        COLLATE "C" NOT NULL,
    event_id       uuid        NOT NULL,
    epoch          bigint      NOT NULL,
    position       bigint      NOT NULL,
    type           text        NOT NULL,
    version        bigint      NOT NULL,
    occurred_at    timestamptz NOT NULL,
    transaction_id text        NOT NULL,
    payload        jsonb       NOT NULL,
    error          text        NOT NULL,
    attempts       bigint      NOT NULL,
    died_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_event_dead_letter PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_event_dead_letter_tenant_id_consumer_event_id UNIQUE (tenant_id, consumer, event_id)
);

-- How much of a product lies in a warehouse, all bins and batches. Derived from the ledger, and made anew from it at
-- will; so it refers to nothing, and takes no lock on a hot product.
CREATE TABLE stock_by_warehouse (
    tenant_id    uuid        NOT NULL,
    id           uuid        NOT NULL DEFAULT strata.uuidv7(),
    product_id   uuid        NOT NULL,
    warehouse_id uuid        NOT NULL,
    on_hand      bigint      NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_stock_by_warehouse PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_stock_by_warehouse_tenant_id_product_id_warehouse_id UNIQUE (tenant_id, product_id, warehouse_id)
);
CREATE INDEX ix_stock_by_warehouse_tenant_id_warehouse_id ON stock_by_warehouse (tenant_id, warehouse_id);

-- The snapshot in which the table above was last made from the ledger: events whose transaction it saw are in it.
CREATE TABLE stock_by_warehouse_basis (
    tenant_id uuid        NOT NULL,
    id        uuid        NOT NULL DEFAULT strata.uuidv7(),
    name      text        COLLATE "C" NOT NULL,
    epoch     bigint      NOT NULL,
    snapshot  text        NOT NULL,
    made_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_stock_by_warehouse_basis PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_stock_by_warehouse_basis_tenant_id_name UNIQUE (tenant_id, name)
);

-- Below this much of it, in all bins together, somebody wants to know.
CREATE TABLE stock_threshold (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL DEFAULT strata.uuidv7(),
    product_id uuid        NOT NULL,
    minimum    bigint      NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_stock_threshold PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_stock_threshold_tenant_id_product_id UNIQUE (tenant_id, product_id),
    CONSTRAINT fk_stock_threshold_tenant_id_product_id FOREIGN KEY (tenant_id, product_id)
        REFERENCES product (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT ck_stock_threshold_minimum_positive CHECK (minimum > 0)
);

-- One alert from the moment a product falls below its threshold until it no longer is.
CREATE TABLE stock_alert (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL DEFAULT strata.uuidv7(),
    product_id uuid        NOT NULL,
    minimum    bigint      NOT NULL,
    on_hand    bigint      NOT NULL,
    opened_at  timestamptz NOT NULL DEFAULT now(),
    closed_at  timestamptz,
    CONSTRAINT pk_stock_alert PRIMARY KEY (tenant_id, id),
    CONSTRAINT fk_stock_alert_tenant_id_product_id FOREIGN KEY (tenant_id, product_id)
        REFERENCES product (tenant_id, id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX uq_stock_alert_tenant_id_product_id ON stock_alert (tenant_id, product_id) WHERE closed_at IS NULL;

SELECT strata.secure('event_mark');
SELECT strata.secure('event_dead_letter');
SELECT strata.secure('stock_by_warehouse');
SELECT strata.secure('stock_by_warehouse_basis');
SELECT strata.secure('stock_threshold');
SELECT strata.secure('stock_alert');
