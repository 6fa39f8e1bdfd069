-- Ways around the door that a stock database leaves open.

-- Temporary objects outlive transactions: one tenant's temporary table caught another's INSERT on a pooled connection.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), (SELECT app_role FROM strata.cell));
END
$$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;

-- Query texts show capabilities; anyone could lock a tenant out, forge a cut-over's marker, end another's back end,
-- or keep data in large objects, which have no rows and so no policies.
DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT p.oid::regprocedure FROM pg_proc p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace
          AND (p.proname ~ '^(lo_|pg_advisory_|pg_try_advisory_|pg_logical_emit_message)'
               OR p.proname IN ('loread', 'lowrite', 'pg_notify', 'pg_stat_get_activity',
                                'pg_stat_get_backend_activity', 'pg_lock_status', 'pg_cancel_backend',
                                'pg_terminate_backend', 'pg_export_snapshot'))
    LOOP
        -- The owner first, by name: an administrator who is no superuser lives on PUBLIC's grants too.
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_function, current_user);
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', v_function);
    END LOOP;
END
$$;
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
