-- One movement, with the idempotency key claimed before anything else: a second request with the same key waits here
-- for the first one's transaction and then finds its answer. Outcomes beside those of post_movements: replayed,
-- key-conflict. On any outcome but posted and replayed the caller rolls back, which gives the key back too.
CREATE FUNCTION post_movement(p_tenant uuid, p_actor text, p_movement jsonb, p_key text, p_request_hash bytea)
RETURNS jsonb
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $function$
DECLARE
    result jsonb;
    stored record;
    claim  uuid;
BEGIN
    IF p_key IS NOT NULL THEN
        INSERT INTO idempotency (tenant_id, key, request_hash) VALUES (p_tenant, p_key, p_request_hash)
        ON CONFLICT (tenant_id, key) DO NOTHING
        RETURNING id INTO claim;
        IF claim IS NULL THEN
            SELECT i.request_hash, i.response INTO stored
              FROM idempotency AS i WHERE i.tenant_id = p_tenant AND i.key = p_key;
            IF stored.request_hash = p_request_hash THEN
                RETURN jsonb_build_object('outcome', 'replayed', 'movement', stored.response);
            END IF;
            RETURN jsonb_build_object('outcome', 'key-conflict');
        END IF;
    END IF;

    result := post_movements(p_tenant, p_actor, jsonb_build_array(p_movement), true) -> 0;

    IF claim IS NOT NULL AND result ->> 'outcome' = 'posted' THEN
        UPDATE idempotency AS i SET status = 201, response = result -> 'movement'
         WHERE i.tenant_id = p_tenant AND i.key = p_key AND i.id = claim;
    END IF;
    RETURN result;
END
$function$;

-- The opposite of a movement, as a movement of its own. Outcomes besides: unknown, not-reversible (it is a reversal
-- itself, or changed nothing), already-reversed. The lines name goods and bins by their codes of today.
CREATE FUNCTION reverse_movement(
    p_tenant uuid, p_actor text, p_original uuid, p_movement jsonb, p_key text, p_request_hash bytea)
RETURNS jsonb
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $function$
DECLARE
    result   jsonb;
    original record;
    lines    jsonb;
BEGIN
    SELECT m.kind, m.reference INTO original FROM movement AS m WHERE m.tenant_id = p_tenant AND m.id = p_original;
    IF NOT FOUND THEN
        RETURN jsonb_build_object('outcome', 'unknown');
    END IF;
    SELECT jsonb_agg(jsonb_build_object(
               'sku', (SELECT p.sku FROM product AS p WHERE p.tenant_id = p_tenant AND p.id = l.product_id),
               'bin', (SELECT b.code FROM bin AS b WHERE b.tenant_id = p_tenant AND b.id = l.bin_id),
               'batch', l.batch, 'quantity', - l.quantity) ORDER BY l.id)
      INTO lines
      FROM stock_ledger AS l
     WHERE l.tenant_id = p_tenant AND l.movement_id = p_original;
    IF original.kind = 'reversal' OR lines IS NULL THEN
        RETURN jsonb_build_object('outcome', 'not-reversible');
    END IF;

    BEGIN
        result := post_movement(
            p_tenant, p_actor,
            p_movement || jsonb_build_object(
                'kind', 'reversal', 'reverses_id', p_original, 'reference', original.reference, 'lines', lines),
            p_key, p_request_hash);
    EXCEPTION WHEN unique_violation THEN
        RETURN jsonb_build_object('outcome', 'already-reversed');
    END;
    -- Of two at once the later may be told of a shortage that the earlier one made.
    IF result ->> 'outcome' = 'shortage' AND EXISTS (
        SELECT FROM movement AS m WHERE m.tenant_id = p_tenant AND m.reverses_id = p_original
    ) THEN
        RETURN jsonb_build_object('outcome', 'already-reversed');
    END IF;
    RETURN result;
END
$function$;
