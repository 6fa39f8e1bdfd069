-- The seal without a signature (docs/adr/0014-a-seal-that-only-the-server-sets.md): who has entered stands in a setting that
-- PostgreSQL lets nobody but a superuser change, so `enter`, which runs as one, and nobody else. What policies ask at every
-- table reference is then a comparison, which the planner puts in place of the call.
--
-- The setting is `backtrace_functions`: the only one of its class (PGC_SUSET) that is text and that everybody may read. Its
-- own use is to name C functions whose errors are logged with a backtrace; no function is called like a schema, an
-- epoch of 19 digits or a UUID. Set for the transaction alone (SET LOCAL), it is gone at its end, whatever the end.
--
-- A transaction that entered by the old seal and is still open when this is applied is refused (SM005) from then on.

-- What a caller has to present, kept beside the epoch that it is good for: worked out once an epoch, not once a
-- transaction. No more secret than `strata.secret`, from which anybody who reads this table could derive it.
ALTER TABLE strata.fence ADD COLUMN capability bytea;

CREATE FUNCTION strata.derive_capability() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT sha256(s.opad || sha256(s.ipad || convert_to('enter|' || NEW.tenant_id::text || '|' || NEW.epoch::text, 'UTF8')))
      INTO STRICT NEW.capability FROM strata.secret s;
    RETURN NEW;
END
$$;
CREATE TRIGGER derive_capability BEFORE INSERT OR UPDATE ON strata.fence
    FOR EACH ROW EXECUTE FUNCTION strata.derive_capability();
UPDATE strata.fence SET epoch = epoch;

-- A new secret of the cell shuts out whoever presents what was derived from the old one.
CREATE FUNCTION strata.derive_capabilities() RETURNS trigger
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE strata.fence SET epoch = epoch;
    RETURN NULL;
END
$$;
CREATE TRIGGER derive_capabilities AFTER UPDATE ON strata.secret
    FOR EACH STATEMENT EXECUTE FUNCTION strata.derive_capabilities();

-- «schema epoch tenant»: the schema's end is unmistakable, and the rest is of fixed length, to be taken from the right.
CREATE FUNCTION strata.seal(p_tenant uuid, p_epoch bigint, p_schema name) RETURNS text
    LANGUAGE sql IMMUTABLE AS $$
    SELECT p_schema || ' ' || lpad(p_epoch::text, 19, '0') || ' ' || replace(p_tenant::text, '-', '')
$$;

-- The door, as a procedure: CALL is not planned, which of all that entering costs was the third part.
CREATE PROCEDURE strata.enter_tenant(p_tenant uuid, p_epoch bigint, p_capability bytea)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_epoch bigint;
    v_state text;
    v_schema name;
    v_capability bytea;
    v_timeline text;
    v_ignored text;
BEGIN
    -- Only ever *tried*: a transaction that waited here would hold a connection others need.
    IF NOT pg_try_advisory_xact_lock_shared(strata.lock_key(p_tenant)) THEN
        RAISE EXCEPTION USING ERRCODE = 'SM002', MESSAGE = 'the tenant is fenced: a cut-over is under way';
    END IF;

    -- A statement of its own, after the lock: under READ COMMITTED it sees what the last holder committed.
    IF current_setting('transaction_isolation') = 'read committed'
        OR current_setting('transaction_read_only') = 'on'
    THEN
        SELECT f.epoch, f.state, f.schema_name, f.capability, c.timeline
          INTO v_epoch, v_state, v_schema, v_capability, v_timeline
          FROM strata.fence f, strata.cell c WHERE f.tenant_id = p_tenant;
    ELSE
        -- Here the snapshot is older than the lock; FOR SHARE turns a fence that changed in between into a 40001.
        SELECT f.epoch, f.state, f.schema_name, f.capability, c.timeline
          INTO v_epoch, v_state, v_schema, v_capability, v_timeline
          FROM strata.fence f, strata.cell c WHERE f.tenant_id = p_tenant FOR SHARE OF f;
    END IF;
    IF v_state = 'moving' AND v_epoch = p_epoch THEN
        RAISE EXCEPTION USING ERRCODE = 'SM002', MESSAGE = 'the tenant is fenced: a cut-over is under way';
    END IF;
    IF v_epoch IS DISTINCT FROM p_epoch OR v_state IS DISTINCT FROM 'active' THEN
        RAISE EXCEPTION USING ERRCODE = 'SM001', MESSAGE = 'this cell does not hold the tenant at this epoch';
    END IF;
    IF pg_is_in_recovery() OR v_timeline <> left(pg_walfile_name(pg_current_wal_lsn()), 8) THEN
        RAISE EXCEPTION USING ERRCODE = 'SM003', MESSAGE = 'this server runs on a timeline that is not approved';
    END IF;
    IF p_capability IS DISTINCT FROM v_capability OR v_capability IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'SM004', MESSAGE = 'the capability is not valid for this tenant and epoch';
    END IF;

    -- Assigned, not performed: an expression by itself needs no executor.
    v_ignored := set_config('backtrace_functions', strata.seal(p_tenant, v_epoch, v_schema), true);
END
$$;

-- For processes that were started before this revision.
CREATE OR REPLACE FUNCTION strata.enter(p_tenant uuid, p_epoch bigint, p_capability bytea) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    CALL strata.enter_tenant(p_tenant, p_epoch, p_capability);
END
$$;

-- The door of a standby: what it checks is as 0003 made it.
CREATE OR REPLACE FUNCTION strata.enter_standby(p_tenant uuid, p_epoch bigint, p_capability bytea, p_standby uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_schema name;
    v_capability bytea;
    v_ignored text;
BEGIN
    -- A standby that was promoted is a primary, whose door is strata.enter_tenant and checks the timeline.
    IF NOT pg_is_in_recovery() OR current_setting('transaction_isolation') <> 'repeatable read' THEN
        RAISE EXCEPTION USING ERRCODE = 'SM006', MESSAGE = 'this door is for standbys, under REPEATABLE READ';
    END IF;
    PERFORM FROM strata.standby_lease l WHERE l.standby = p_standby AND l.leased_until >= clock_timestamp();
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'SM006', MESSAGE = 'this standby holds no lease: it lags, or is not registered';
    END IF;

    SELECT f.schema_name, f.capability INTO v_schema, v_capability FROM strata.fence f
    WHERE f.tenant_id = p_tenant AND f.epoch = p_epoch AND f.state = 'active'
      AND f.standby_closed_epoch IS DISTINCT FROM p_epoch;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'SM006', MESSAGE = 'as replayed here, the tenant is not open at this epoch';
    END IF;
    IF p_capability IS DISTINCT FROM v_capability OR v_capability IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'SM004', MESSAGE = 'the capability is not valid for this tenant and epoch';
    END IF;

    v_ignored := set_config('backtrace_functions', strata.seal(p_tenant, p_epoch, v_schema), true);
END
$$;

-- What policies compare with: the entered tenant, provided that it entered *this* schema. Raises rather than returning
-- NULL: unset must never look like empty. Not SECURITY DEFINER, so that the planner inlines it; BEGIN ATOMIC, so that every name
-- in it was looked up here and now, not in the search_path of whoever asks.
CREATE FUNCTION strata.refuse_unentered() RETURNS uuid
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'SM005',
        MESSAGE = 'no tenant has been entered for this schema in this transaction';
END
$$;
CREATE OR REPLACE FUNCTION strata.tenant(p_schema text) RETURNS uuid
    LANGUAGE sql STABLE PARALLEL RESTRICTED SECURITY INVOKER
    BEGIN ATOMIC
        SELECT CASE
            WHEN current_setting('backtrace_functions') ^@ (p_schema || ' ')
                THEN pg_catalog.right(current_setting('backtrace_functions'), 32)::uuid
            ELSE strata.refuse_unentered()
        END;
    END;

-- The tenant that this transaction has entered, in whatever schema. For functions that run as the owner.
CREATE OR REPLACE FUNCTION strata.entered() RETURNS uuid
    LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_seal text := right(current_setting('backtrace_functions'), 53);
BEGIN
    IF v_seal NOT LIKE ' ___________________ ________________________________' THEN
        RAISE EXCEPTION USING ERRCODE = 'SM005', MESSAGE = 'no tenant has been entered in this transaction';
    END IF;
    RETURN right(v_seal, 32)::uuid;
END
$$;

-- Writes one event of the tenant that this transaction has entered.
CREATE OR REPLACE FUNCTION strata.emit(p_type text, p_version integer, p_payload jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_seal text := right(current_setting('backtrace_functions'), 53);
    v_tenant uuid;
    v_transaction xid8 := pg_current_xact_id();
    v_ignored text;
BEGIN
    -- What strata.entered() does, written out: every movement comes by here.
    IF v_seal NOT LIKE ' ___________________ ________________________________' THEN
        RAISE EXCEPTION USING ERRCODE = 'SM005', MESSAGE = 'no tenant has been entered in this transaction';
    END IF;
    v_tenant := right(v_seal, 32)::uuid;

    -- Once a transaction: locks are counted, and a table of them is finite. A savepoint that is rolled back takes the
    -- setting along with the lock.
    IF current_setting('strata.emitting', true) IS DISTINCT FROM v_transaction::text THEN
        v_ignored := pg_advisory_xact_lock_shared(
            strata.emitter_key(v_tenant), (nextval('strata.outbox_position') & 2147483647)::integer);
        v_ignored := set_config('strata.emitting', v_transaction::text, true);
    END IF;

    -- The epoch that was entered is the fence's: it changes only under the tenant's lock, which this transaction has.
    INSERT INTO strata.outbox (
        tenant_id, epoch, position, event_id, type, version, occurred_at, transaction_id, payload)
    VALUES (v_tenant, substr(v_seal, 2, 19)::bigint, nextval('strata.outbox_position'), strata.uuidv7(), p_type, p_version,
            transaction_timestamp(), v_transaction, p_payload);
END
$$;

-- The old seal, signed anew at every table reference. No client ever could call it: only the functions above did.
-- squawk-ignore ban-drop-function
DROP FUNCTION strata.seal(text, text, bytea, bytea);

REVOKE ALL ON FUNCTION strata.derive_capability(), strata.derive_capabilities(), strata.seal(uuid, bigint, name),
    strata.refuse_unentered() FROM PUBLIC;
REVOKE ALL ON PROCEDURE strata.enter_tenant(uuid, bigint, bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION strata.refuse_unentered() TO PUBLIC;
GRANT EXECUTE ON PROCEDURE strata.enter_tenant(uuid, bigint, bytea) TO PUBLIC;
