-- What chains the tenants' audit (table audit_entry of the tenant chain): each row hashes its predecessor and itself.

-- JSON that has one spelling: keys by code point, nothing between the tokens, numbers as they are kept. Whoever exports an
-- audit can spell it the same and check it without this database (strata/tenancy/audit/chain.py does).
CREATE FUNCTION strata.canonical_json(p_value jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE jsonb_typeof(p_value)
        WHEN 'object' THEN '{' || coalesce((
            SELECT string_agg(to_json(m.key)::text || ':' || strata.canonical_json(m.value), ',' ORDER BY m.key COLLATE "C")
            FROM jsonb_each(p_value) AS m), '') || '}'
        WHEN 'array' THEN '[' || coalesce((
            SELECT string_agg(strata.canonical_json(e.value), ',' ORDER BY e.number)
            FROM jsonb_array_elements(p_value) WITH ORDINALITY AS e (value, number)), '') || ']'
        ELSE p_value::text
    END;
END
$$;

-- Before INSERT. Number, time, predecessor and digest are the database's word, whatever the statement says. Fires for rows
-- that are written, not for rows that a move brings: those carry their chain with them.
CREATE FUNCTION strata.chain_audit() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_sequence bigint;
    v_digest   bytea;
BEGIN
    -- One at a time. Entries travel with their transaction's COMMIT, so nobody waits here for longer than that.
    PERFORM pg_advisory_xact_lock(hashtextextended(NEW.tenant_id::text, 7527));
    -- A statement of its own, after the lock: it sees what the last holder committed.
    EXECUTE format('SELECT e.sequence, e.digest FROM %I.%I AS e WHERE e.tenant_id = $1 ORDER BY e.sequence DESC LIMIT 1',
                   TG_TABLE_SCHEMA, TG_TABLE_NAME)
       INTO v_sequence, v_digest USING NEW.tenant_id;
    NEW.sequence := coalesce(v_sequence, 0) + 1;
    NEW.previous := coalesce(v_digest, decode(repeat('00', 32), 'hex'));
    NEW.at := clock_timestamp();
    NEW.digest := sha256(NEW.previous || convert_to(strata.canonical_json(jsonb_build_object(
        'action', NEW.action, 'actor', NEW.actor,
        'at', to_char(NEW.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'authentication', NEW.authentication, 'detail', NEW.detail, 'id', NEW.id, 'request', NEW.request,
        'sequence', NEW.sequence, 'source', NEW.source, 'subject', NEW.subject, 'tenant_id', NEW.tenant_id)), 'UTF8'));
    RETURN NEW;
END
$$;

-- Before UPDATE or DELETE, for whoever has been granted it by mistake, and for an administrator's slip. Rows go only with
-- their tenant: when the fence no longer lets it in here.
CREATE FUNCTION strata.keep_audit() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' OR EXISTS (
        SELECT FROM strata.fence f
        WHERE f.tenant_id = OLD.tenant_id AND f.schema_name = TG_TABLE_SCHEMA AND f.state = 'active')
    THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'rows of the audit are only ever added';
    END IF;
    RETURN OLD;
END
$$;

REVOKE ALL ON FUNCTION strata.canonical_json(jsonb), strata.chain_audit(), strata.keep_audit() FROM PUBLIC;
