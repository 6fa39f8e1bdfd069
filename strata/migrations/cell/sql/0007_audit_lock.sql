-- The same chain, with less done under its lock. All of a tenant's audited transactions pass there one after the other: what
-- a back end does for the first time, and most of the spelling, comes before.
CREATE OR REPLACE FUNCTION strata.chain_audit() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_sequence bigint;
    v_digest   bytea;
    -- The entry's canonical JSON up to its time, from there to its number, and the rest.
    v_first    text := strata.canonical_json(jsonb_build_object('action', NEW.action, 'actor', NEW.actor));
    v_second   text := strata.canonical_json(jsonb_build_object(
        'authentication', NEW.authentication, 'detail', NEW.detail, 'id', NEW.id, 'request', NEW.request));
    v_third    text := strata.canonical_json(jsonb_build_object(
        'source', NEW.source, 'subject', NEW.subject, 'tenant_id', NEW.tenant_id));
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
    NEW.digest := sha256(NEW.previous || convert_to(
        left(v_first, -1) || ',"at":"' || to_char(NEW.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '",'
        || substr(left(v_second, -1), 2) || ',"sequence":' || NEW.sequence || ',' || substr(v_third, 2), 'UTF8'));
    RETURN NEW;
END
$$;
