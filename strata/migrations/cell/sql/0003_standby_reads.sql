-- Reads on a standby (docs/adr/0009-standby-reads.md). Advisory locks are local to a standby and it may have stopped
-- replaying long ago: what it can still check by itself is what it has replayed, how old that is, and its own clock.

-- Reads at this epoch are not for standbys: a cut-over is near. It says an epoch, so that nobody needs to take it back.
ALTER TABLE strata.fence ADD COLUMN standby_closed_epoch bigint;

-- A standby may serve until then, by its own clock. The row reaches it through the log like any other: one that has not
-- replayed for longer than a lease lasts has none. One row for each registration of a standby.
CREATE TABLE strata.standby_lease (
    standby      uuid        PRIMARY KEY,
    leased_until timestamptz NOT NULL
);
REVOKE ALL ON strata.standby_lease FROM PUBLIC;

-- How long a lease lasts. Whoever closes a tenant to standbys waits this long and a margin for the clocks
-- (tenancy/replicas/lease.py has both numbers).
CREATE FUNCTION strata.standby_lease_span() RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT interval '4 seconds' $$;

-- Renew the leases of standbys whose clocks have just been looked at. On the primary, by an administrator.
CREATE FUNCTION strata.lease_standbys(p_standbys uuid[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- A standby of a primary that nobody approved (promoted, not reconciled) must not serve either.
    IF pg_is_in_recovery()
        OR left(pg_walfile_name(pg_current_wal_lsn()), 8) <> (SELECT c.timeline FROM strata.cell c)
    THEN
        RAISE EXCEPTION USING ERRCODE = 'SM003', MESSAGE = 'this server runs on a timeline that is not approved';
    END IF;
    -- Lost in a crash it would only lapse sooner.
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO strata.standby_lease AS held (standby, leased_until)
    SELECT id, clock_timestamp() + strata.standby_lease_span() FROM unnest(p_standbys) AS id ORDER BY id
    ON CONFLICT (standby) DO UPDATE SET leased_until = excluded.leased_until
    -- Another process has done it a moment ago: every process that reads from a standby renews.
    WHERE held.leased_until < excluded.leased_until - interval '500 milliseconds';
END
$$;

-- Refuses until this standby has replayed a position of the primary's log. In a transaction of its own *before* the one
-- that reads: a position that is looked at after the snapshot was taken may be newer than the snapshot.
CREATE FUNCTION strata.require_replayed(p_position pg_lsn) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_position > coalesce(pg_last_wal_replay_lsn(), '0/0') THEN
        RAISE EXCEPTION USING ERRCODE = 'SM006', MESSAGE = 'this standby has not replayed the last write yet';
    END IF;
END
$$;

-- The door of a standby. The transaction is REPEATABLE READ: the fence row that is checked here and the rows that are
-- read later are of one snapshot, so that a tenant which moves away is read whole or not at all.
CREATE FUNCTION strata.enter_standby(p_tenant uuid, p_epoch bigint, p_capability bytea, p_standby uuid) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_schema name;
    v_ipad bytea;
    v_opad bytea;
BEGIN
    -- A standby that was promoted is a primary, whose door is strata.enter and checks the timeline.
    IF NOT pg_is_in_recovery() OR current_setting('transaction_isolation') <> 'repeatable read' THEN
        RAISE EXCEPTION USING ERRCODE = 'SM006', MESSAGE = 'this door is for standbys, under REPEATABLE READ';
    END IF;
    PERFORM FROM strata.standby_lease l WHERE l.standby = p_standby AND l.leased_until >= clock_timestamp();
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'SM006', MESSAGE = 'this standby holds no lease: it lags, or is not registered';
    END IF;

    SELECT f.schema_name INTO v_schema FROM strata.fence f
    WHERE f.tenant_id = p_tenant AND f.epoch = p_epoch AND f.state = 'active'
      AND f.standby_closed_epoch IS DISTINCT FROM p_epoch;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'SM006', MESSAGE = 'as replayed here, the tenant is not open at this epoch';
    END IF;

    SELECT s.ipad, s.opad INTO v_ipad, v_opad FROM strata.secret s;
    IF p_capability IS DISTINCT FROM sha256(v_opad || sha256(v_ipad || convert_to(
        'enter|' || p_tenant::text || '|' || p_epoch::text, 'UTF8')))
    THEN
        RAISE EXCEPTION USING ERRCODE = 'SM004', MESSAGE = 'the capability is not valid for this tenant and epoch';
    END IF;

    PERFORM set_config('strata.seal', strata.seal(p_tenant::text, v_schema, v_ipad, v_opad), true);
END
$$;

-- Says how far the log has come, behind a COMMIT in one message. Drivers drop the rows of such a message and keep what
-- the server tells besides. The *insert* position: with synchronous_commit off the written one is behind the commit.
CREATE FUNCTION strata.tell_position() RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE INFO USING ERRCODE = 'SM100', MESSAGE = pg_current_wal_insert_lsn()::text;
END
$$;

REVOKE ALL ON FUNCTION strata.standby_lease_span(), strata.lease_standbys(uuid[]), strata.require_replayed(pg_lsn),
    strata.enter_standby(uuid, bigint, bytea, uuid), strata.tell_position() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION strata.require_replayed(pg_lsn), strata.enter_standby(uuid, bigint, bytea, uuid),
    strata.tell_position() TO PUBLIC;
