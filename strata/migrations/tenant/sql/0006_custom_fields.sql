-- Values of the fields that a tenant has added. The document stands with its row; beside it a row for each value, kept by
-- triggers, to be found by: reading into jsonb is not leakproof, so under row-level security no index on the document serves.
ALTER TABLE product ADD COLUMN custom jsonb NOT NULL DEFAULT '{}';
ALTER TABLE movement ADD COLUMN custom jsonb NOT NULL DEFAULT '{}';

CREATE TABLE custom_value (
    tenant_id uuid NOT NULL,
    id        uuid NOT NULL DEFAULT strata.uuidv7(),
    entity    text COLLATE "C" NOT NULL,
    entity_id uuid NOT NULL,
    key       text COLLATE "C" NOT NULL,
    value     text COLLATE "C" NOT NULL,
    CONSTRAINT pk_custom_value PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_custom_value_tenant_id_entity_entity_id_key UNIQUE (tenant_id, entity, entity_id, key),
    CONSTRAINT ck_custom_value_entity_known CHECK (entity = ANY (ARRAY['product', 'movement']))
);
CREATE INDEX ix_custom_value_tenant_id_entity_key_value ON custom_value (tenant_id, entity, key, value, entity_id);
SELECT strata.secure('custom_value');

-- TG_ARGV[0] is the entity. The table is named by the trigger's schema: an administrator who deletes has another search_path.
CREATE FUNCTION index_custom_values() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_table text := quote_ident(TG_TABLE_SCHEMA) || '.custom_value';
BEGIN
    IF TG_OP <> 'INSERT' THEN
        EXECUTE 'DELETE FROM ' || v_table || ' WHERE tenant_id = $1 AND entity = $2 AND entity_id = $3'
          USING OLD.tenant_id, TG_ARGV[0], OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        EXECUTE 'INSERT INTO ' || v_table || ' (tenant_id, entity, entity_id, key, value)'
             || ' SELECT $1, $2, $3, e.key, left(e.value, 200) FROM jsonb_each_text($4) AS e WHERE e.value IS NOT NULL'
          USING NEW.tenant_id, TG_ARGV[0], NEW.id, NEW.custom;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER product_custom_made AFTER INSERT ON product FOR EACH ROW
    WHEN (NEW.custom <> '{}') EXECUTE FUNCTION index_custom_values('product');
CREATE TRIGGER product_custom_changed AFTER UPDATE ON product FOR EACH ROW
    WHEN (NEW.custom <> OLD.custom) EXECUTE FUNCTION index_custom_values('product');
CREATE TRIGGER product_custom_gone AFTER DELETE ON product FOR EACH ROW
    WHEN (OLD.custom <> '{}') EXECUTE FUNCTION index_custom_values('product');
CREATE TRIGGER movement_custom_made AFTER INSERT ON movement FOR EACH ROW
    WHEN (NEW.custom <> '{}') EXECUTE FUNCTION index_custom_values('movement');

-- A movement that waits for somebody who may approve it.
CREATE TABLE movement_request (
    tenant_id    uuid        NOT NULL,
    id           uuid        NOT NULL DEFAULT strata.uuidv7(),
    state        text        NOT NULL DEFAULT 'pending',
    document     jsonb       NOT NULL,
    reason       text        NOT NULL,
    requested_by text        NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    decided_by   text,
    decided_at   timestamptz,
    note         text,
    movement_id  uuid,
    CONSTRAINT pk_movement_request PRIMARY KEY (tenant_id, id),
    CONSTRAINT fk_movement_request_tenant_id_movement_id FOREIGN KEY (tenant_id, movement_id)
        REFERENCES movement (tenant_id, id),
    CONSTRAINT ck_movement_request_state_known CHECK (state = ANY (ARRAY['pending', 'approved', 'rejected'])),
    CONSTRAINT ck_movement_request_decided CHECK ((state = 'pending') = (decided_by IS NULL)),
    CONSTRAINT ck_movement_request_not_by_oneself CHECK (state <> 'approved' OR decided_by <> requested_by),
    CONSTRAINT ck_movement_request_approved_is_posted CHECK ((state = 'approved') = (movement_id IS NOT NULL))
);
CREATE INDEX ix_movement_request_tenant_id_state_id ON movement_request (tenant_id, state, id);
SELECT strata.secure('movement_request');
