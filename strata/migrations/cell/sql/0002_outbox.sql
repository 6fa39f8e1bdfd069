-- The outbox: what happened to each tenant of this cell, as rows, written in the transaction in which it happened.
-- One table for all tenants and schemas of the cell, so that looking for news costs the same with one as with thousands.
-- Closed to every role: `emit` is how rows get in, and the functions for the relay how they get out (ADR 0008).
--
-- Order. Positions come from one sequence, drawn while the writer holds the locks of what it changed: who changed a thing
-- after another has the greater position. But a smaller position may be committed later, and must not be skipped. So a
-- writer, before it draws a position, draws a floor and holds a shared advisory lock that shows it, to its end; the
-- relay takes rows no further than the lowest floor in sight. No writer waits, for the relay or for another writer.

-- No CACHE: positions kept back in a session would be drawn long before they are used.
CREATE SEQUENCE strata.outbox_position AS bigint CACHE 1;

CREATE TABLE strata.outbox (
    tenant_id      uuid        NOT NULL,
    epoch          bigint      NOT NULL,
    position       bigint      NOT NULL,
    event_id       uuid        NOT NULL,
    type           text        NOT NULL,
    version        integer     NOT NULL,
    occurred_at    timestamptz NOT NULL,
    -- Whose work it was: whoever read the tables in a snapshot can tell whether that saw this event's effect.
    transaction_id xid8        NOT NULL,
    payload        jsonb       NOT NULL,
    CONSTRAINT pk_outbox PRIMARY KEY (tenant_id, epoch, position),
    CONSTRAINT ck_outbox_type_size CHECK (char_length(type) BETWEEN 1 AND 64),
    CONSTRAINT ck_outbox_version_positive CHECK (version > 0)
) WITH (
    -- A queue: as many rows go as come. Vacuumed by number of dead rows, not by a share of what is there.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000
);
ALTER TABLE strata.outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE strata.outbox FORCE ROW LEVEL SECURITY;
REVOKE ALL ON strata.outbox FROM PUBLIC;
REVOKE ALL ON SEQUENCE strata.outbox_position FROM PUBLIC;

-- Two integers, a key space apart from the tenants' own locks: who emits, and the floor, modulo 2^31.
CREATE FUNCTION strata.emitter_key(p_tenant uuid) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT hashtext(p_tenant::text)';

-- The tenant that this transaction has entered, in whatever schema. For the functions below, which run as the owner.
CREATE FUNCTION strata.entered() RETURNS uuid
    LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_seal text := current_setting('strata.seal', true);
    v_tenant text := left(v_seal, 36);
    v_ipad bytea;
    v_opad bytea;
BEGIN
    SELECT s.ipad, s.opad INTO v_ipad, v_opad FROM strata.secret s;
    IF v_seal IS NULL
        OR v_seal IS DISTINCT FROM strata.seal(v_tenant, split_part(substr(v_seal, 37), '|', 1), v_ipad, v_opad)
    THEN
        RAISE EXCEPTION USING ERRCODE = 'SM005', MESSAGE = 'no tenant has been entered in this transaction';
    END IF;
    RETURN v_tenant::uuid;
END
$$;

-- Writes one event of the tenant that this transaction has entered.
CREATE FUNCTION strata.emit(p_type text, p_version integer, p_payload jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_seal text := current_setting('strata.seal', true);
    v_tenant uuid;
    v_epoch bigint;
    v_transaction xid8 := pg_current_xact_id();
BEGIN
    -- What strata.entered() does, written out: every movement comes by here, and a call within the call costs it 10 µs.
    PERFORM FROM strata.secret s
      WHERE v_seal = strata.seal(left(v_seal, 36), split_part(substr(v_seal, 37), '|', 1), s.ipad, s.opad);
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'SM005', MESSAGE = 'no tenant has been entered in this transaction';
    END IF;
    v_tenant := left(v_seal, 36)::uuid;

    -- Once a transaction: locks are counted, and a table of them is finite. A savepoint that is rolled back takes the
    -- setting along with the lock.
    IF current_setting('strata.emitting', true) IS DISTINCT FROM v_transaction::text THEN
        PERFORM pg_advisory_xact_lock_shared(
            strata.emitter_key(v_tenant), (nextval('strata.outbox_position') & 2147483647)::integer);
        PERFORM set_config('strata.emitting', v_transaction::text, true);
    END IF;

    -- The fence's epoch is the one that was entered: it changes only under the tenant's lock, which this transaction has.
    SELECT f.epoch INTO STRICT v_epoch FROM strata.fence f WHERE f.tenant_id = v_tenant;
    INSERT INTO strata.outbox (
        tenant_id, epoch, position, event_id, type, version, occurred_at, transaction_id, payload)
    VALUES (v_tenant, v_epoch, nextval('strata.outbox_position'), strata.uuidv7(), p_type, p_version,
            transaction_timestamp(), v_transaction, p_payload);
END
$$;

-- The epoch of the home that this transaction is in, for whoever writes down a place in the order of events.
CREATE FUNCTION strata.epoch() RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_tenant uuid := strata.entered();
BEGIN
    RETURN (SELECT f.epoch FROM strata.fence f WHERE f.tenant_id = v_tenant);
END
$$;

-- What the relay presents, for one tenant's rows or (NULL) for the list of who has any. Not `enter`: rows stay behind
-- when their tenant moves away, in a cell that rightly lets nobody enter any more.
CREATE FUNCTION strata.check_relay(p_tenant uuid, p_capability bytea) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_ipad bytea;
    v_opad bytea;
    v_timeline text;
BEGIN
    SELECT s.ipad, s.opad, c.timeline INTO v_ipad, v_opad, v_timeline FROM strata.secret s, strata.cell c;
    IF pg_is_in_recovery() OR v_timeline <> left(pg_walfile_name(pg_current_wal_lsn()), 8) THEN
        RAISE EXCEPTION USING ERRCODE = 'SM003', MESSAGE = 'this server runs on a timeline that is not approved';
    END IF;
    IF p_capability IS DISTINCT FROM sha256(v_opad || sha256(v_ipad || convert_to(
        'derive|relay|' || coalesce(p_tenant::text, 'all'), 'UTF8')))
    THEN
        RAISE EXCEPTION USING ERRCODE = 'SM004', MESSAGE = 'the capability is not valid for this outbox';
    END IF;
END
$$;

-- Who has events waiting, in the order of their ids, after one. One index descent a tenant, however many events each has.
CREATE FUNCTION strata.outbox_waiting(p_capability bytea, p_after uuid, p_limit integer) RETURNS SETOF uuid
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_tenant uuid;
BEGIN
    PERFORM strata.check_relay(NULL, p_capability);
    SELECT o.tenant_id INTO v_tenant FROM strata.outbox o WHERE o.tenant_id > p_after ORDER BY o.tenant_id LIMIT 1;
    FOR i IN 1 .. p_limit LOOP
        EXIT WHEN v_tenant IS NULL;
        RETURN NEXT v_tenant;
        SELECT o.tenant_id INTO v_tenant FROM strata.outbox o WHERE o.tenant_id > v_tenant ORDER BY o.tenant_id LIMIT 1;
    END LOOP;
END
$$;

-- A tenant's events after a place, in order, as far as their order is settled. Three statements, in this order, each
-- with a snapshot of its own: the newest position in sight; the floors; the rows. A row at p is left out while anybody
-- may still commit one below p: who drew that position is either done, and its row is in sight of the third statement,
-- or held its lock before the second, with a floor below p; who took its lock later draws beyond all of them.
CREATE FUNCTION strata.outbox_take(
    p_tenant uuid, p_capability bytea, p_epoch bigint, p_position bigint, p_limit integer, p_bytes bigint)
RETURNS TABLE (epoch bigint, "position" bigint, event_id uuid, type text, version integer, occurred_at timestamptz,
               transaction_id text, payload text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_newest bigint;
    v_floor bigint;
    v_class bigint := strata.emitter_key(p_tenant)::bigint & 4294967295;
BEGIN
    PERFORM strata.check_relay(p_tenant, p_capability);
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_transaction_state', MESSAGE = 'outbox_take needs READ COMMITTED';
    END IF;
    SELECT o.position INTO v_newest FROM strata.outbox o WHERE o.tenant_id = p_tenant
     ORDER BY o.epoch DESC, o.position DESC LIMIT 1;

    -- How far a floor lies below the newest, modulo 2^31; «far» below is above.
    SELECT min(v_newest - below.by) INTO v_floor
      FROM (SELECT (v_newest - l.objid::bigint) & 2147483647 AS by
              FROM pg_lock_status() AS l
             WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.classid::bigint = v_class
               AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) AS below
     WHERE below.by < 1073741824;

    -- At least one row, and no more than fit into p_bytes: an import's events are large.
    RETURN QUERY
    SELECT r.epoch, r.position, r.event_id, r.type, r.version, r.occurred_at, r.transaction_id::text, r.payload::text
      FROM (SELECT o.*, sum(pg_column_size(o.payload)) OVER (ORDER BY o.epoch, o.position)
                        - pg_column_size(o.payload) AS before_it
              FROM (SELECT * FROM strata.outbox o
                     WHERE o.tenant_id = p_tenant AND (o.epoch, o.position) > (p_epoch, p_position)
                       AND o.position <= least(v_newest, v_floor)
                     ORDER BY o.epoch, o.position LIMIT p_limit) AS o) AS r
     WHERE r.before_it <= p_bytes
     ORDER BY r.epoch, r.position;
END
$$;

-- Delivered to everybody: the rows go.
CREATE FUNCTION strata.outbox_acknowledge(p_tenant uuid, p_capability bytea, p_epoch bigint, p_position bigint)
RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_count bigint;
BEGIN
    PERFORM strata.check_relay(p_tenant, p_capability);
    DELETE FROM strata.outbox o WHERE o.tenant_id = p_tenant AND (o.epoch, o.position) <= (p_epoch, p_position);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END
$$;

-- Whether anything from before an epoch is left here. Conclusive once the catalog has the tenant in another cell: the
-- cut-over waited for every writer, and lets no new one in.
CREATE FUNCTION strata.outbox_pending(p_tenant uuid, p_capability bytea, p_before_epoch bigint) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM strata.check_relay(p_tenant, p_capability);
    RETURN EXISTS (SELECT FROM strata.outbox o WHERE o.tenant_id = p_tenant AND o.epoch < p_before_epoch);
END
$$;

REVOKE ALL ON FUNCTION
    strata.emitter_key(uuid), strata.entered(), strata.epoch(), strata.emit(text, integer, jsonb), strata.check_relay(uuid, bytea),
    strata.outbox_waiting(bytea, uuid, integer), strata.outbox_take(uuid, bytea, bigint, bigint, integer, bigint),
    strata.outbox_acknowledge(uuid, bytea, bigint, bigint), strata.outbox_pending(uuid, bytea, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION strata.emit(text, integer, jsonb), strata.epoch() TO PUBLIC;
DO $$
BEGIN
    EXECUTE format(
        'GRANT EXECUTE ON FUNCTION strata.outbox_waiting(bytea, uuid, integer),'
        ' strata.outbox_take(uuid, bytea, bigint, bigint, integer, bigint),'
        ' strata.outbox_acknowledge(uuid, bytea, bigint, bigint), strata.outbox_pending(uuid, bytea, bigint) TO %I',
        (SELECT app_role FROM strata.cell));
END
$$;
