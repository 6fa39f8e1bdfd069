-- The door. Every SECURITY DEFINER function here pins `search_path = pg_catalog, pg_temp`: with pg_temp first (its
-- place when it is not named), a temporary domain called `text` ran code as the definer and read the secret.

-- UUIDv7 on every server version we support; PostgreSQL 18 brings its own.
DO $$
BEGIN
    IF current_setting('server_version_num')::int >= 180000 THEN
        CREATE FUNCTION strata.uuidv7() RETURNS uuid
            LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT pg_catalog.uuidv7()';
    ELSE
        CREATE FUNCTION strata.uuidv7() RETURNS uuid
            LANGUAGE sql VOLATILE PARALLEL SAFE AS $body$
            -- RFC 9562, 5.7: 48 bits of Unix milliseconds over a version 4 UUID, version bits set from 0100 to 0111.
            SELECT encode(
                set_bit(set_bit(
                    overlay(uuid_send(gen_random_uuid())
                        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                        FROM 1 FOR 6),
                    52, 1), 53, 1),
                'hex')::uuid
        $body$;
    END IF;
END
$$;

-- The advisory lock of a tenant: writers hold it shared, a cut-over exclusive.
CREATE FUNCTION strata.lock_key(p_tenant uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT hashtextextended(p_tenant::text, 7526)';

-- Opens the current transaction to one tenant. Must be the transaction's first query: above READ COMMITTED the
-- snapshot is taken here, and a savepoint made before it could outlive the lock.
CREATE FUNCTION strata.enter(p_tenant uuid, p_epoch bigint, p_capability bytea) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_epoch bigint;
    v_state text;
    v_schema name;
    v_ipad bytea;
    v_opad bytea;
    v_timeline text;
BEGIN
    -- Only ever *tried*: a transaction that waited here would hold a connection others need.
    IF NOT pg_try_advisory_xact_lock_shared(strata.lock_key(p_tenant)) THEN
        RAISE EXCEPTION USING ERRCODE = 'SM002', MESSAGE = 'the tenant is fenced: a cut-over is under way';
    END IF;

    -- A statement of its own, after the lock: under READ COMMITTED it sees what the last holder committed.
    IF current_setting('transaction_isolation') = 'read committed'
        OR current_setting('transaction_read_only') = 'on'
    THEN
        SELECT f.epoch, f.state, f.schema_name INTO v_epoch, v_state, v_schema
        FROM strata.fence f WHERE f.tenant_id = p_tenant;
    ELSE
        -- Here the snapshot is older than the lock; FOR SHARE turns a fence that changed in between into a 40001.
        SELECT f.epoch, f.state, f.schema_name INTO v_epoch, v_state, v_schema
        FROM strata.fence f WHERE f.tenant_id = p_tenant FOR SHARE;
    END IF;
    IF v_state = 'moving' AND v_epoch = p_epoch THEN
        RAISE EXCEPTION USING ERRCODE = 'SM002', MESSAGE = 'the tenant is fenced: a cut-over is under way';
    END IF;
    IF v_epoch IS DISTINCT FROM p_epoch OR v_state IS DISTINCT FROM 'active' THEN
        RAISE EXCEPTION USING ERRCODE = 'SM001', MESSAGE = 'this cell does not hold the tenant at this epoch';
    END IF;

    SELECT s.ipad, s.opad, c.timeline INTO v_ipad, v_opad, v_timeline FROM strata.secret s, strata.cell c;
    IF pg_is_in_recovery() OR v_timeline <> left(pg_walfile_name(pg_current_wal_lsn()), 8) THEN
        RAISE EXCEPTION USING ERRCODE = 'SM003', MESSAGE = 'this server runs on a timeline that is not approved';
    END IF;

    IF p_capability IS DISTINCT FROM sha256(v_opad || sha256(v_ipad || convert_to(
        'enter|' || p_tenant::text || '|' || p_epoch::text, 'UTF8')))
    THEN
        RAISE EXCEPTION USING ERRCODE = 'SM004', MESSAGE = 'the capability is not valid for this tenant and epoch';
    END IF;

    PERFORM set_config('strata.seal', strata.seal(p_tenant::text, v_schema, v_ipad, v_opad), true);
END
$$;

-- The seal: readable by all, forgeable by none, good in this back end and this transaction only.
CREATE FUNCTION strata.seal(p_tenant text, p_schema text, p_ipad bytea, p_opad bytea) RETURNS text
    LANGUAGE sql STABLE AS $$
    SELECT p_tenant || p_schema || '|' || encode(sha256(p_opad || sha256(p_ipad || convert_to(
        'seal|' || p_tenant || '|' || p_schema || '|' || pg_backend_pid()::text || '|'
        || extract(epoch FROM transaction_timestamp())::text, 'UTF8'))), 'hex')
$$;

-- What policies compare with: the entered tenant, provided that it entered *this* schema. Wrapped in a sub-select the
-- planner evaluates it once per table reference. Raises rather than returning NULL: unset must never look like empty.
CREATE FUNCTION strata.tenant(p_schema text) RETURNS uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_seal text := current_setting('strata.seal', true);
    v_tenant text := left(v_seal, 36);
    v_ipad bytea;
    v_opad bytea;
BEGIN
    SELECT s.ipad, s.opad INTO v_ipad, v_opad FROM strata.secret s;
    -- In a back end where nobody ever entered, both sides would be NULL and not distinct.
    IF v_seal IS NULL OR v_seal IS DISTINCT FROM strata.seal(v_tenant, p_schema, v_ipad, v_opad) THEN
        RAISE EXCEPTION USING ERRCODE = 'SM005',
            MESSAGE = 'no tenant has been entered for this schema in this transaction';
    END IF;
    RETURN v_tenant::uuid;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA strata FROM PUBLIC;
GRANT EXECUTE ON FUNCTION strata.uuidv7(), strata.enter(uuid, bigint, bytea), strata.tenant(text) TO PUBLIC;
