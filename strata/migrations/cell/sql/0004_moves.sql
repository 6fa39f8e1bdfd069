-- What a move keeps in the cells it touches. Administrators only: the application never sees these.

-- The attempt that may write for a tenant's move: a worker that slept, woke and goes on finds another number here.
CREATE TABLE strata.move_attempt (
    tenant_id uuid   PRIMARY KEY,
    attempt   bigint NOT NULL
);

-- How far a stream into this cell has come; written in the transaction of the changes it counts (migrator/progress.py).
CREATE TABLE strata.apply_progress (
    origin     text        PRIMARY KEY,
    attempt    bigint      NOT NULL,
    position   pg_lsn      NOT NULL,
    marker     text,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- First in every writing transaction of a move: holds this attempt until the transaction ends, or ends it. The next
-- attempt's stamp waits for whoever holds; after it nobody of before writes any more.
CREATE FUNCTION strata.hold_attempt(p_tenant uuid, p_attempt bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_attempt bigint;
BEGIN
    SELECT m.attempt INTO v_attempt FROM strata.move_attempt m WHERE m.tenant_id = p_tenant FOR SHARE;
    IF v_attempt IS DISTINCT FROM p_attempt THEN
        RAISE EXCEPTION USING ERRCODE = 'SM007', MESSAGE = 'attempt ' || p_attempt::text || ' of the move is over';
    END IF;
END
$$;

-- Step 3 of a cut-over, one statement and so one transaction, which a worker that falls asleep cannot keep open: nobody
-- is inside any more, nobody comes in before the row that says `moving` is seen, and the log says where that was.
-- The caller has set lock_timeout.
CREATE FUNCTION strata.drain_fence(p_tenant uuid, p_attempt bigint, p_prefix text) RETURNS pg_lsn
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(strata.lock_key(p_tenant));
    -- A statement of its own, after the lock.
    IF NOT EXISTS (
        SELECT FROM strata.fence f WHERE f.tenant_id = p_tenant AND f.state = 'moving' AND f.attempt = p_attempt
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'SM007', MESSAGE = 'the fence is not shut by attempt ' || p_attempt::text;
    END IF;
    -- Transactional: it stands in the log behind every commit of the tenant's, with synchronous_commit off too.
    RETURN pg_logical_emit_message(true, p_prefix, p_attempt::text);
END
$$;

REVOKE ALL ON strata.move_attempt, strata.apply_progress FROM PUBLIC;
REVOKE ALL ON FUNCTION strata.hold_attempt(uuid, bigint), strata.drain_fence(uuid, bigint, text) FROM PUBLIC;
