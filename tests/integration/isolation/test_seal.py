"""The seal: good for one tenant, in one schema and one transaction, and set by `strata.enter_tenant` alone."""

from __future__ import annotations

import secrets

import asyncpg
import pytest

from strata.runtime import Runtime
from strata.tenancy.cell.door import CellSecret, Isolation, entry_message
from strata.tenancy.cell.inspection import lockdown_gaps
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.intruder import FORBIDDEN, NOT_ENTERED, app_login, attempt, inside
from tests.builders.platform import SECOND_CELL, Tenantry, admin_of

READ = "SELECT count(*) FROM product"
BAD_CAPABILITY = "SM004"
STALE = "SM001"


@pytest.fixture(scope="module", params=Tier)
async def tenant(request: pytest.FixtureRequest, runtime: Runtime, tenant_on: Tenantry) -> TenantContext:
    """With a row: over an empty table PostgreSQL need not ask the policy at all."""
    context = await tenant_on(Tier(request.param))
    async with inside(runtime, context) as connection:
        await connection.execute("INSERT INTO product (sku, name) VALUES ('mine', 'mine')")
    return context


async def entry(runtime: Runtime, context: TenantContext) -> str:
    cell = await runtime.registry.cell(context.placement.cell)
    return entry_message(cell.secret, context.id, context.placement, Isolation.READ_COMMITTED, read_only=False)


async def seal_of(connection: asyncpg.Connection) -> str:
    seal: str = await connection.fetchval("SELECT current_setting('backtrace_functions')")
    return seal


def seal_for(context: TenantContext) -> str:
    return f"{context.placement.schema_name} {context.placement.epoch:019d} {context.id.hex}"


async def sealed_with(connection: asyncpg.Connection, seal: str | None, context: TenantContext) -> str | None:
    """SQLSTATE of a read in a transaction that has the tenant's path and role, and this seal instead of an entry."""
    schema = context.placement.schema_name
    await connection.execute("BEGIN")
    try:
        if seal is not None:
            setting = await attempt(connection, f"SELECT set_config('backtrace_functions', '{seal}', true)")
            assert setting.sqlstate == FORBIDDEN
        await connection.execute("SELECT set_config('search_path', $1, true)", schema)
        if context.placement.tier is Tier.SCHEMA:
            await connection.execute("SELECT set_config('role', $1, true)", schema)
        return (await attempt(connection, READ)).sqlstate
    finally:
        await connection.execute("ROLLBACK")


async def test_entering_seals(runtime: Runtime, tenant: TenantContext) -> None:
    async with app_login(runtime, tenant.placement.cell) as connection:
        await connection.execute(await entry(runtime, tenant))
        assert await connection.fetchval(READ) == 1


@pytest.mark.parametrize("made_up", [None, "", "x", "{schema}", "{schema} ", "{schema} {a}", "{seal}"])
async def test_unset_empty_and_invented_seals_are_refused(
    runtime: Runtime, tenant: TenantContext, made_up: str | None
) -> None:
    """The last of them is the very one that `enter_tenant` would set."""
    schema, seal = tenant.placement.schema_name, seal_for(tenant)
    made_up = made_up and made_up.format(a=tenant.id.hex, schema=schema, seal=seal)
    async with app_login(runtime, tenant.placement.cell) as connection:
        assert await sealed_with(connection, made_up, tenant) == NOT_ENTERED


WAYS_TO_SET = [
    "SET backtrace_functions = '{seal}'",
    "SET LOCAL backtrace_functions = '{seal}'",
    "SET backtrace_functions TO DEFAULT",
    "RESET backtrace_functions",
    "SELECT set_config('backtrace_functions', '{seal}', true)",
    "SELECT set_config('backtrace_functions', '{seal}', false)",
    "SELECT set_config('Backtrace_Functions', '{seal}', false)",
    "UPDATE pg_settings SET setting = '{seal}' WHERE name = 'backtrace_functions'",
    "ALTER ROLE CURRENT_USER SET backtrace_functions = '{seal}'",
    "ALTER ROLE ALL SET backtrace_functions = '{seal}'",
    "ALTER DATABASE {database} SET backtrace_functions = '{seal}'",
    "GRANT SET ON PARAMETER backtrace_functions TO CURRENT_USER",
    "SELECT query_to_xml($$SELECT set_config('backtrace_functions', '{seal}', true)$$, true, true, '')",
]


@pytest.mark.parametrize("way", WAYS_TO_SET)
async def test_nobody_but_the_server_sets_a_seal(
    runtime: Runtime, tenant: TenantContext, tenant_on: Tenantry, way: str
) -> None:
    """Neither a neighbour's nor one's own, neither inside a transaction that has entered nor outside of one."""
    neighbour = await tenant_on(Tier.SHARED)
    cell = await runtime.registry.cell(tenant.placement.cell)
    for wanted in (neighbour, tenant):
        statement = way.format(seal=seal_for(wanted), database=cell.url.database)
        async with inside(runtime, tenant) as connection:
            own = await seal_of(connection)
            assert (await attempt(connection, statement)).sqlstate == FORBIDDEN
            assert await seal_of(connection) == own == seal_for(tenant)
        async with app_login(runtime, tenant.placement.cell) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
            assert await seal_of(connection) == ""


async def test_no_connection_begins_with_a_seal(runtime: Runtime, tenant: TenantContext) -> None:
    url = (await runtime.registry.cell(tenant.placement.cell)).url
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            password=url.password,
            database=url.database,
            server_settings={"backtrace_functions": seal_for(tenant)},
        )


async def test_it_is_the_right_to_set_it_that_guards(runtime: Runtime, tenant: TenantContext) -> None:
    """The control: given that right by mistake, the application enters by itself. `strata doctor` looks for it."""
    role = f"{runtime.settings.role_prefix}_app"
    async with admin_of(runtime, tenant.placement.cell) as admin:
        await admin.execute(f"GRANT SET ON PARAMETER backtrace_functions TO {role}")
        try:
            async with app_login(runtime, tenant.placement.cell) as connection:
                await connection.execute(f"SET backtrace_functions = '{seal_for(tenant)}'")
                schema = tenant.placement.schema_name
                assert await connection.fetchval(f"SELECT strata.tenant('{schema}')") == tenant.id
            assert [str(each) for each in await lockdown_gaps(admin, role)] == [
                f"role {role} may set backtrace_functions, and so say which tenant it has entered"
            ]
        finally:
            await admin.execute(f"REVOKE SET ON PARAMETER backtrace_functions FROM {role}")


async def test_a_seal_is_refused_in_a_later_transaction_of_the_same_back_end(
    runtime: Runtime, tenant: TenantContext
) -> None:
    async with app_login(runtime, tenant.placement.cell) as connection:
        await connection.execute(await entry(runtime, tenant))
        seal = await seal_of(connection)
        await connection.execute("COMMIT")
        assert await sealed_with(connection, seal, tenant) == NOT_ENTERED


async def test_a_seal_is_refused_in_another_back_end(runtime: Runtime, tenant: TenantContext) -> None:
    cell = tenant.placement.cell
    async with app_login(runtime, cell) as one, app_login(runtime, cell) as other:
        await one.execute(await entry(runtime, tenant))
        assert await sealed_with(other, await seal_of(one), tenant) == NOT_ENTERED


async def test_a_chained_transaction_does_not_inherit_the_seal(runtime: Runtime, tenant: TenantContext) -> None:
    async with app_login(runtime, tenant.placement.cell) as connection:
        await connection.execute(await entry(runtime, tenant))
        await connection.execute("COMMIT AND CHAIN")
        assert await seal_of(connection) == ""
        await connection.execute(f"SET search_path = {tenant.placement.schema_name}")
        if tenant.placement.tier is Tier.SCHEMA:
            await connection.execute(f"SET ROLE {tenant.placement.schema_name}")
        assert (await attempt(connection, READ)).sqlstate == NOT_ENTERED


@pytest.mark.parametrize(
    ("vandal", "sqlstate"),
    [
        ("RESET backtrace_functions", FORBIDDEN),
        ("SET LOCAL backtrace_functions = ''", FORBIDDEN),
        ("RESET ALL", NOT_ENTERED),
    ],
)
async def test_a_seal_lost_in_mid_transaction_closes_it(
    runtime: Runtime, tenant: TenantContext, vandal: str, sqlstate: str
) -> None:
    async with inside(runtime, tenant) as connection:
        outcome = await attempt(connection, vandal, f"SELECT count(*) FROM {tenant.placement.schema_name}.product")
        assert outcome.sqlstate == sqlstate


@pytest.mark.parametrize("tier", [Tier.SHARED, Tier.SCHEMA])
async def test_a_seal_opens_one_schema(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    """Where the tenant's old home stands in the same database, it is closed even if its rows are still there."""
    context = await tenant_on(tier)
    async with inside(runtime, context) as connection:
        assert (await attempt(connection, "SELECT strata.tenant('elsewhere')")).sqlstate == NOT_ENTERED
        own = await attempt(connection, f"SELECT strata.tenant('{context.placement.schema_name}')")
        assert own.value == context.id
        other = "shared" if tier is Tier.SCHEMA else "main"
        assert (await attempt(connection, f"SELECT strata.tenant('{other}')")).sqlstate == NOT_ENTERED
        assert (await attempt(connection, "SELECT strata.tenant(NULL)")).sqlstate == NOT_ENTERED


async def test_a_seal_opens_no_schema_whose_name_begins_alike(runtime: Runtime, tenant: TenantContext) -> None:
    schema = tenant.placement.schema_name
    async with inside(runtime, tenant) as connection:
        for other in (schema[:-1], schema[0], "", schema + "x", schema + " ", f"{schema} {0:019d}"):
            assert (await attempt(connection, f"SELECT strata.tenant('{other}')")).sqlstate == NOT_ENTERED, other


async def test_what_the_seal_says(runtime: Runtime, tenant: TenantContext) -> None:
    async with inside(runtime, tenant) as connection:
        assert await seal_of(connection) == seal_for(tenant)


async def test_a_setting_of_the_operators_is_no_seal(runtime: Runtime, tenant: TenantContext) -> None:
    """Somebody has backtraces logged, with whatever names: entering goes before it, and nobody has entered by it."""
    async with admin_of(runtime, tenant.placement.cell) as admin:
        database = (await runtime.registry.cell(tenant.placement.cell)).url.database
        schema = tenant.placement.schema_name
        await admin.execute(f"ALTER DATABASE \"{database}\" SET backtrace_functions = '{schema},ExecInsert,a b c'")
        try:
            async with app_login(runtime, tenant.placement.cell) as connection:
                await connection.execute("BEGIN")
                assert (await attempt(connection, f"SELECT strata.tenant('{schema}')")).sqlstate == NOT_ENTERED
                assert (await attempt(connection, "SELECT strata.epoch()")).sqlstate == NOT_ENTERED
                await connection.execute("ROLLBACK")
                await connection.execute(await entry(runtime, tenant))
                assert await connection.fetchval(READ) == 1
        finally:
            await admin.execute(f'ALTER DATABASE "{database}" RESET backtrace_functions')


async def test_the_fence_knows_the_capability_of_each_epoch(runtime: Runtime, tenant: TenantContext) -> None:
    cell = await runtime.registry.cell(tenant.placement.cell)
    async with admin_of(runtime, tenant.placement.cell) as admin, admin.transaction():
        for epoch in (tenant.placement.epoch, tenant.placement.epoch + 1):
            await admin.execute("UPDATE strata.fence SET epoch = $2 WHERE tenant_id = $1", tenant.id, epoch)
            kept = await admin.fetchval("SELECT capability FROM strata.fence WHERE tenant_id = $1", tenant.id)
            assert kept.hex() == cell.secret.capability(tenant.id, epoch)
        await admin.execute(
            "UPDATE strata.fence SET epoch = $2 WHERE tenant_id = $1", tenant.id, tenant.placement.epoch
        )


async def test_capabilities_of_others_are_refused(runtime: Runtime, tenant: TenantContext, tenant_on: Tenantry) -> None:
    """Of another tenant, epoch, cell or secret; cut short, empty or NULL."""
    neighbour = await tenant_on(Tier.SHARED)
    cell = await runtime.registry.cell(tenant.placement.cell)
    elsewhere = await runtime.registry.cell(SECOND_CELL)
    epoch = tenant.placement.epoch
    good = cell.secret.capability(tenant.id, epoch)
    wrong = [
        cell.secret.capability(neighbour.id, epoch),
        cell.secret.capability(tenant.id, epoch + 1),
        elsewhere.secret.capability(tenant.id, epoch),
        CellSecret(secrets.token_bytes(32)).capability(tenant.id, epoch),
        good[:-2],
        good + "00",
        "",
    ]
    async with app_login(runtime, tenant.placement.cell) as connection:
        for capability in [f"'\\x{each}'" for each in wrong] + ["NULL"]:
            await connection.execute("BEGIN")
            outcome = await attempt(connection, f"SELECT strata.enter('{tenant.id}', {epoch}, {capability})")
            assert outcome.sqlstate == BAD_CAPABILITY, capability
            await connection.execute("ROLLBACK")


async def test_an_intruder_cannot_enter_its_neighbour(
    runtime: Runtime, tenant: TenantContext, tenant_on: Tenantry
) -> None:
    """Its own capability, an epoch ahead, nothing at all, also from inside its own transaction."""
    neighbour = await tenant_on(Tier.SHARED)
    cell = await runtime.registry.cell(tenant.placement.cell)
    own = cell.secret.capability(tenant.id, tenant.placement.epoch)
    expected = {BAD_CAPABILITY} if tenant.placement.cell == neighbour.placement.cell else {STALE}
    async with inside(runtime, tenant) as connection:
        for capability in (f"'\\x{own}'", "''", "NULL"):
            outcome = await attempt(connection, f"SELECT strata.enter('{neighbour.id}', 1, {capability})")
            assert outcome.sqlstate in expected
            outcome = await attempt(connection, f"SELECT strata.enter('{neighbour.id}', 2, {capability})")
            assert outcome.sqlstate == STALE


async def test_a_refusal_does_not_say_whether_a_tenant_lives_here(
    runtime: Runtime, tenant: TenantContext, tenant_on: Tenantry
) -> None:
    """Nobody without a capability learns more than that it is refused; unknown tenants and wrong epochs look the same."""
    neighbour = await tenant_on(Tier.SCHEMA, cell=SECOND_CELL)
    async with inside(runtime, tenant) as connection:
        outcomes = {
            (await attempt(connection, f"SELECT strata.enter('{who}', 7, '')")).message
            for who in (neighbour.id, tenant.id)
        }
    assert len(outcomes) == 1


async def test_the_cell_keeps_the_key_in_padded_blocks_only(runtime: Runtime, tenant: TenantContext) -> None:
    async with admin_of(runtime, tenant.placement.cell) as admin:
        row = await admin.fetchrow("SELECT ipad, opad FROM strata.secret")
    assert row is not None
    assert bytes(b ^ 0x36 for b in row["ipad"]) == bytes(b ^ 0x5C for b in row["opad"])
    secret = (await runtime.registry.cell(tenant.placement.cell)).secret
    assert secret.padded() == (row["ipad"].hex(), row["opad"].hex())


async def test_no_parallel_worker_sees_more(runtime: Runtime, tenant_on: Tenantry) -> None:
    """A parallel plan keeps the seal with the leader (PARALLEL RESTRICTED), and so finds own rows only."""
    mine, theirs = await tenant_on(Tier.SHARED), await tenant_on(Tier.SHARED)
    for context in (mine, theirs):
        async with inside(runtime, context) as connection:
            await connection.execute(
                "INSERT INTO product (sku, name) SELECT 's' || n, 'x' FROM generate_series(1, 3000) AS n"
            )
    async with inside(runtime, mine) as connection:
        await connection.execute(
            "SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0;"
            "SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off; SET LOCAL enable_bitmapscan = off;"
            "SET LOCAL debug_parallel_query = regress"
        )
        assert await connection.fetchval("SELECT count(*) FROM product WHERE name = 'x'") == 3000
