"""What a tenant's transaction may not do at all, whatever SQL gets into it; on every tier, by the named error."""

from __future__ import annotations

import pytest

from strata.runtime import Runtime
from tests.builders.intruder import FORBIDDEN, attempt, inside
from tests.builders.scenes import Scene

INVALID_ROLE = "22023"
NOT_NOW = "55000"

# {own}: a table of the attacker's; {theirs}: the victim's; {schema}: the attacker's schema; {role}: the application's.
FORBIDDEN_STATEMENTS = {
    "read the secret": "SELECT * FROM strata.secret",
    "read the fence": "SELECT * FROM strata.fence",
    "read the cell": "SELECT * FROM strata.cell",
    "read the revisions": "SELECT * FROM strata.revision",
    "open the fence": "INSERT INTO strata.fence VALUES (gen_random_uuid(), 1, 'active', '{schema}')",
    "move the fence": "UPDATE strata.fence SET epoch = epoch + 1",
    "drop the fence": "DELETE FROM strata.fence",
    "read the secret through COPY": "COPY strata.secret TO STDOUT",
    "seal by hand": "SELECT set_config('backtrace_functions', strata.seal('{a}', 1, '{schema}'), true)",
    "secure a table": "SELECT strata.secure('product')",
    "lock key": "SELECT strata.lock_key('{a}')",
    "disable row level security": "ALTER TABLE {own} DISABLE ROW LEVEL SECURITY",
    "no force": "ALTER TABLE {own} NO FORCE ROW LEVEL SECURITY",
    "drop the wall": "DROP POLICY tenant_wall ON {own}",
    "build a door into the wall": "CREATE POLICY door ON {own} USING (true)",
    "change the wall": "ALTER POLICY tenant_wall ON {own} USING (true)",
    "truncate": "TRUNCATE {own}",
    "truncate theirs": "TRUNCATE {theirs}",
    "drop a table": "DROP TABLE {own}",
    "change the default tenant": "ALTER TABLE {own} ALTER COLUMN tenant_id SET DEFAULT gen_random_uuid()",
    "drop a trigger": "ALTER TABLE {own} DISABLE TRIGGER ALL",
    "make a trigger": "CREATE TRIGGER t BEFORE INSERT ON {own} FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "make a rule": "CREATE RULE r AS ON INSERT TO {own} DO INSTEAD NOTHING",
    "make an index": "CREATE INDEX ON {own} (id)",
    "make a table": "CREATE TABLE {schema}.mine (id int)",
    "make a table in public": "CREATE TABLE public.mine (id int)",
    "make a table in strata": "CREATE TABLE strata.mine (id int)",
    "make a view": "CREATE VIEW {schema}.peek AS SELECT * FROM {own}",
    "make a materialised view": "CREATE MATERIALIZED VIEW {schema}.peek AS SELECT * FROM {own}",
    "make a function": "CREATE FUNCTION {schema}.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "overload tenant()": "CREATE FUNCTION {schema}.tenant(text) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
    "overload strata.tenant()": "CREATE FUNCTION strata.tenant(varchar) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
    "replace strata.tenant()": "CREATE OR REPLACE FUNCTION strata.tenant(p_schema text) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
    "alter strata.tenant()": "ALTER FUNCTION strata.tenant(text) RESET search_path",
    "make an operator": "CREATE OPERATOR {schema}.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = uuid_ne)",
    "make a domain": "CREATE DOMAIN {schema}.uuid AS text",
    "make a cast": "CREATE CAST (text AS uuid) WITH INOUT AS IMPLICIT",
    "make a schema": "CREATE SCHEMA mine",
    "make a temporary table": "CREATE TEMP TABLE product (id int)",
    "make a temporary table by another name": "CREATE TABLE pg_temp.product (id int)",
    "make a temporary table from a query": "CREATE TEMP TABLE product AS SELECT 1 AS id",
    "select into a temporary table": "SELECT 1 AS id INTO TEMP product",
    "make a temporary view": "CREATE TEMP VIEW product AS SELECT 1 AS id",
    "make a temporary sequence": "CREATE TEMP SEQUENCE s",
    "make a temporary domain": "CREATE DOMAIN pg_temp.text AS pg_catalog.text",
    "make a temporary function": "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "make an event trigger": "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "make a publication": "CREATE PUBLICATION p",
    "make an extension": "CREATE EXTENSION pg_trgm",
    "make a role": "CREATE ROLE mine",
    "make a foreign data wrapper": "CREATE FOREIGN DATA WRAPPER w",
    "run code": "DO $$ BEGIN NULL; END $$",
    "another's name": "SET SESSION AUTHORIZATION postgres",
    "superuser's role": "SET ROLE postgres",
    "monitor": "SET ROLE pg_read_all_data",
    "replica": "SET session_replication_role = replica",
    "replica by function": "SELECT set_config('session_replication_role', 'replica', true)",
    "log less": "SET log_statement = 'none'",
    "hear replication": "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
    "write the log": "SELECT pg_logical_emit_message(true, 'strata', 'moved')",
    "see others' statements": "SELECT query FROM pg_stat_activity",
    "see others' statements by function": "SELECT pg_stat_get_backend_activity(1)",
    "see locks": "SELECT * FROM pg_locks",
    "see prepared statements": "SELECT * FROM pg_prepared_statements",
    "see cursors": "SELECT * FROM pg_cursors",
    "end another's back end": "SELECT pg_terminate_backend(pg_backend_pid())",
    "cancel another's statement": "SELECT pg_cancel_backend(pg_backend_pid())",
    "lock a tenant out": "SELECT pg_advisory_lock(1)",
    "lock a tenant out for the transaction": "SELECT pg_advisory_xact_lock(1)",
    "lock a tenant out shared": "SELECT pg_try_advisory_lock_shared(1)",
    "unlock all": "SELECT pg_advisory_unlock_all()",
    "notify by function": "SELECT pg_notify('strata', 'x')",
    "read a file": "SELECT pg_read_file('/etc/passwd')",
    "list files": "SELECT pg_ls_dir('.')",
    "run a program": "COPY (SELECT 1) TO PROGRAM 'true'",
    "write a file": "COPY (SELECT 1) TO '/tmp/out'",
    "make a large object": "SELECT lo_create(0)",
    "fill a large object": "SELECT lo_from_bytea(0, 'x')",
    "read a large object": "SELECT lo_get(1)",
    "open a large object": "SELECT lo_open(1, 131072)",
    "large objects of others": "SELECT * FROM pg_largeobject",
    "statistics of values": "SELECT count(*) FROM pg_statistic",
    "passwords": "SELECT * FROM pg_authid",
    "settings of other roles": "ALTER ROLE postgres SET log_statement = 'none'",
    "export a snapshot": "SELECT pg_export_snapshot()",
    "give away privileges": "GRANT pg_read_all_data TO {role}",
    "take privileges from everybody": "DROP OWNED BY {role}",
    "take privileges from oneself": "DROP OWNED BY CURRENT_USER",
    "change default privileges": "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC",
    "comment": "COMMENT ON TABLE {own} IS 'mine'",
    "statistics object": "CREATE STATISTICS st ON id, tenant_id FROM {own}",
    "analyze": "LOCK TABLE strata.fence IN ACCESS SHARE MODE",
    "vacuum full in disguise": "CLUSTER {own}",
    "reindex": "REINDEX TABLE {own}",
}


@pytest.mark.parametrize("name", FORBIDDEN_STATEMENTS)
async def test_it_is_refused_by_name(runtime: Runtime, scene: Scene, name: str) -> None:
    product = next(iter(scene.own.values()))
    statement = FORBIDDEN_STATEMENTS[name].format(
        own=product.qualified,
        theirs=scene.theirs[product.name].qualified,
        schema=product.schema,
        role=f"{runtime.settings.role_prefix}_app",
        a=scene.attacker.id,
    )
    async with inside(runtime, scene.attacker) as connection:
        outcome = await attempt(connection, statement)
    assert outcome.sqlstate == FORBIDDEN, outcome
