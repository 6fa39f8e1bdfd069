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
                                'pg_terminate_backend', 'pg_export_snapshot',
                                -- What another tenant's transaction left on this pooled connection.
                                'pg_prepared_statement', 'pg_cursor'))
    LOOP
        -- The owner first, by name: an administrator who is no superuser lives on PUBLIC's grants too.
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', v_function, current_user);
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', v_function);
    END LOOP;
END
$$;
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;

-- The application runs no DDL at all. Most is refused for want of ownership; DROP OWNED BY CURRENT_USER is not, and
-- would take its privileges from every tenant of the cell.
CREATE FUNCTION strata.refuse_ddl() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF session_user = (SELECT c.app_role FROM strata.cell c) THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'the application runs no DDL: ' || tg_tag;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION strata.refuse_ddl() FROM PUBLIC;
CREATE EVENT TRIGGER strata_refuse_ddl ON ddl_command_start EXECUTE FUNCTION strata.refuse_ddl();
