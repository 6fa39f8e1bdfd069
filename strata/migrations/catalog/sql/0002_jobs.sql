-- What Strata adds to Procrastinate's tables: the fair fetch, why a job failed, and which schedules have fired.
-- A job's args are an envelope (strata.platform.jobs.envelope): `owner` is whose job it is (empty: the platform's),
-- `share` how many of an owner's jobs may run at once. A lane is the jobs of one owner in one queue.

-- No job without a scope, whoever queues it.
ALTER TABLE procrastinate_jobs ADD CONSTRAINT ck_procrastinate_jobs_owner_said
    CHECK (args ->> 'owner' IS NOT NULL AND args ->> 'key' IS NOT NULL);

-- Jobs that could start now, lane by lane. Those for later are not in it: the fetch moves them in when they are due.
CREATE INDEX ix_procrastinate_jobs_lane
    ON procrastinate_jobs (queue_name, ((args ->> 'owner') COLLATE "C"), priority DESC, id)
    WHERE status = 'todo' AND scheduled_at IS NULL;
CREATE INDEX ix_procrastinate_jobs_due ON procrastinate_jobs (scheduled_at)
    WHERE status = 'todo' AND scheduled_at IS NOT NULL;
CREATE INDEX ix_procrastinate_jobs_running ON procrastinate_jobs (((args ->> 'owner') COLLATE "C"))
    WHERE status = 'doing';
CREATE INDEX ix_procrastinate_jobs_dead ON procrastinate_jobs (id) WHERE status = 'failed';

-- A queue's table is rewritten all day long.
ALTER TABLE procrastinate_jobs SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

CREATE TABLE job_trouble (
    job_id   bigint      NOT NULL CONSTRAINT pk_job_trouble PRIMARY KEY
                         CONSTRAINT fk_job_trouble_job_id REFERENCES procrastinate_jobs (id) ON DELETE CASCADE,
    failures integer     NOT NULL DEFAULT 0, -- count against the job's attempts
    put_off  integer     NOT NULL DEFAULT 0, -- do not: something it needs was away
    lost     integer     NOT NULL DEFAULT 0, -- its worker died or fell silent
    since    timestamptz NOT NULL DEFAULT now(),
    last_at  timestamptz NOT NULL DEFAULT now(),
    code     text        NOT NULL,
    detail   text        NOT NULL
);

CREATE TABLE schedule_mark (
    schedule text        NOT NULL,
    zone     text        NOT NULL,
    due_at   timestamptz NOT NULL,
    CONSTRAINT pk_schedule_mark PRIMARY KEY (schedule, zone)
);

-- The next job for a worker: the lanes take turns, beginning behind the lane the worker was served from last; within a
-- lane by priority, then age. One that has its share running is passed over. The cost is a few index probes, however many
-- jobs wait; only lanes that are passed over add to it.
CREATE FUNCTION fetch_fairly(
    p_queues text[], p_tasks text[], p_worker bigint, p_after_queue text, p_after_owner text
) RETURNS SETOF procrastinate_jobs
    LANGUAGE plpgsql VOLATILE
    -- A plan made while the table was empty would read all of it for as long as the connection lives.
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
    SET search_path = jobs, pg_temp
AS $$
DECLARE
    v_queue text := p_after_queue;
    v_owner text := p_after_owner;
    v_came_round boolean := false;
    v_share integer;
    v_id bigint;
BEGIN
    -- Should the server crash, a job that was fetched a moment ago is merely fetched again.
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE procrastinate_jobs SET scheduled_at = NULL WHERE id IN (
        SELECT id FROM procrastinate_jobs WHERE status = 'todo' AND scheduled_at <= now()
        ORDER BY scheduled_at LIMIT 100 FOR UPDATE SKIP LOCKED);
    LOOP
        SELECT j.queue_name, j.args ->> 'owner', (j.args ->> 'share')::integer INTO v_queue, v_owner, v_share
            FROM procrastinate_jobs j
            WHERE j.status = 'todo' AND j.scheduled_at IS NULL
              AND (j.queue_name, (j.args ->> 'owner') COLLATE "C") > (v_queue, v_owner)
            ORDER BY j.queue_name, (j.args ->> 'owner') COLLATE "C" LIMIT 1;
        IF NOT FOUND THEN
            EXIT WHEN v_came_round;
            v_came_round := true;
            v_queue := '';
            v_owner := '';
            CONTINUE;
        END IF;
        EXIT WHEN v_came_round AND (v_queue, v_owner COLLATE "C") > (p_after_queue, p_after_owner);
        IF v_queue <> ALL (p_queues) THEN
            v_owner := '~'; -- behind every owner: on to the next queue
            CONTINUE;
        END IF;
        IF v_share IS NOT NULL THEN
            CONTINUE WHEN (SELECT count(*) FROM procrastinate_jobs j
                WHERE j.status = 'doing' AND (j.args ->> 'owner') COLLATE "C" = v_owner) >= v_share;
            -- Two fetches for one owner go one after the other, else both would find the last place free. The lock is held
            -- to the commit; where the place is gone by then it goes with the subtransaction: nobody waits holding two.
            BEGIN
                PERFORM pg_advisory_xact_lock(hashtextextended(v_owner, 7527));
                IF (SELECT count(*) FROM procrastinate_jobs j
                        WHERE j.status = 'doing' AND (j.args ->> 'owner') COLLATE "C" = v_owner) >= v_share THEN
                    RAISE EXCEPTION USING ERRCODE = 'JB001';
                END IF;
            EXCEPTION WHEN SQLSTATE 'JB001' THEN
                CONTINUE;
            END;
        END IF;
        SELECT j.id INTO v_id FROM procrastinate_jobs j
            WHERE j.status = 'todo' AND j.scheduled_at IS NULL AND j.queue_name = v_queue
              AND (j.args ->> 'owner') COLLATE "C" = v_owner
              -- A job that only a newer version of the program knows is left to that version's workers.
              AND j.task_name = ANY (p_tasks)
            ORDER BY j.priority DESC, j.id LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF FOUND THEN
            RETURN QUERY UPDATE procrastinate_jobs j SET status = 'doing', worker_id = p_worker
                WHERE j.id = v_id RETURNING j.*;
            RETURN;
        END IF;
    END LOOP;
END
$$;

-- Procrastinate's functions and triggers name their tables without a schema; they shall work whoever calls.
DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'jobs'::regnamespace AND p.proname LIKE 'procrastinate%'
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = jobs, pg_temp', v_function);
    END LOOP;
END
$$;
