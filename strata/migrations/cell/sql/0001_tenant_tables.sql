-- What a revision of the tenant tables calls, so that its SQL is the same in every schema: the schema is wherever the
-- search_path points, and the role that may touch it follows from the schema's name.

CREATE FUNCTION strata.schema_role() RETURNS name
    LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN current_schema() ~ '^t_[0-9a-f]{32}$' THEN current_schema() ELSE c.app_role END
    FROM strata.cell c
$$;

-- Tenant default, row-level security (enabled and forced), the tenant wall, and DML alone for the role.
CREATE FUNCTION strata.secure(p_table text, append_only boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_table text := format('%I.%I', current_schema(), p_table);
BEGIN
    EXECUTE format('ALTER TABLE %s ALTER COLUMN tenant_id SET DEFAULT strata.tenant(%L)', v_table, current_schema());
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_table);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', v_table);
    EXECUTE format(
        'CREATE POLICY tenant_wall ON %s USING (tenant_id = (SELECT strata.tenant(%L)))'
        ' WITH CHECK (tenant_id = (SELECT strata.tenant(%L)))', v_table, current_schema(), current_schema());
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', v_table);
    EXECUTE format('GRANT SELECT, INSERT%s ON %s TO %I',
        CASE WHEN append_only THEN '' ELSE ', UPDATE, DELETE' END, v_table, strata.schema_role());
END
$$;

-- Hash partitions by tenant: several in a shared schema, one where only one tenant lives. Nothing is granted on them,
-- and forced row-level security without a policy closes them even to a grant made by mistake.
CREATE FUNCTION strata.partition_by_tenant(p_table text) RETURNS void
    LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_count integer := CASE current_schema() WHEN 'shared' THEN (SELECT partitions FROM strata.cell) ELSE 1 END;
    v_part text;
BEGIN
    FOR i IN 0 .. v_count - 1 LOOP
        v_part := format('%I.%I', current_schema(), p_table || '_p' || i);
        EXECUTE format('CREATE TABLE %s PARTITION OF %I.%I FOR VALUES WITH (MODULUS %s, REMAINDER %s)',
            v_part, current_schema(), p_table, v_count, i);
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_part);
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', v_part);
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', v_part);
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION strata.schema_role(), strata.secure(text, boolean), strata.partition_by_tenant(text) FROM PUBLIC;
