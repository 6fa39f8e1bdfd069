"""The seal: good for one tenant, in one schema, one back end and one transaction, and made by `strata.enter` alone."""

from __future__ import annotations

import hashlib
import hmac
import secrets

import asyncpg
import pytest

from strata.runtime import Runtime
from strata.tenancy.cell.door import CellSecret, Isolation, entry_message
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.intruder import NOT_ENTERED, app_login, attempt, inside
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
    seal: str = await connection.fetchval("SELECT current_setting('strata.seal')")
    return seal


async def sealed_with(connection: asyncpg.Connection, seal: str | None, context: TenantContext) -> str | None:
    """SQLSTATE of a read in a transaction that has the tenant's path and role, and this seal instead of an entry."""
    schema = context.placement.schema_name
    await connection.execute("BEGIN")
    try:
        if seal is not None:
            await connection.execute("SELECT set_config('strata.seal', $1, true)", seal)
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


@pytest.mark.parametrize("made_up", [None, "", "x", "{a}", "{a}{schema}", "{a}{schema}|", "{a}{schema}|" + "0" * 64])
async def test_unset_empty_and_invented_seals_are_refused(
    runtime: Runtime, tenant: TenantContext, made_up: str | None
) -> None:
    seal = made_up and made_up.format(a=tenant.id, schema=tenant.placement.schema_name)
    async with app_login(runtime, tenant.placement.cell) as connection:
        assert await sealed_with(connection, seal, tenant) == NOT_ENTERED


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
        seal = await seal_of(connection)
        await connection.execute(f"SET strata.seal = '{seal}'; COMMIT AND CHAIN")
        await connection.execute(f"SET search_path = {tenant.placement.schema_name}")
        if tenant.placement.tier is Tier.SCHEMA:
            await connection.execute(f"SET ROLE {tenant.placement.schema_name}")
        assert (await attempt(connection, READ)).sqlstate == NOT_ENTERED


async def test_the_seal_kept_for_the_session_does_not_serve_the_next(runtime: Runtime, tenant: TenantContext) -> None:
    """`set_config(…, false)` outlives the transaction; the seal in it does not."""
    async with app_login(runtime, tenant.placement.cell) as connection:
        await connection.execute(await entry(runtime, tenant))
        await connection.execute("SELECT set_config('strata.seal', current_setting('strata.seal'), false)")
        await connection.execute("COMMIT")
        assert await sealed_with(connection, None, tenant) == NOT_ENTERED


@pytest.mark.parametrize("vandal", ["RESET strata.seal", "SET LOCAL strata.seal = ''", "RESET ALL"])
async def test_a_seal_lost_in_mid_transaction_closes_it(runtime: Runtime, tenant: TenantContext, vandal: str) -> None:
    async with inside(runtime, tenant) as connection:
        outcome = await attempt(connection, vandal, f"SELECT count(*) FROM {tenant.placement.schema_name}.product")
        assert outcome.sqlstate == NOT_ENTERED


async def test_a_seal_carries_one_tenant(runtime: Runtime, tenant: TenantContext, tenant_on: Tenantry) -> None:
    """Its first part names the tenant; another name there is a forgery, also of oneself's neighbour."""
    neighbour = await tenant_on(Tier.SHARED)
    async with inside(runtime, tenant) as connection:
        own = await seal_of(connection)
        for seal in (str(neighbour.id) + own[36:], own.upper(), own + "0", own[:-1]):
            outcome = await attempt(connection, f"SELECT set_config('strata.seal', '{seal}', true)", READ)
            assert outcome.sqlstate == NOT_ENTERED


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


async def test_a_seal_rewritten_for_another_schema_is_refused(runtime: Runtime, tenant: TenantContext) -> None:
    schema = tenant.placement.schema_name
    async with inside(runtime, tenant) as connection:
        own = await seal_of(connection)
        rewritten = own.replace(schema, "elsewhere")
        assert rewritten != own
        outcome = await attempt(
            connection, f"SELECT set_config('strata.seal', '{rewritten}', true)", "SELECT strata.tenant('elsewhere')"
        )
        assert outcome.sqlstate == NOT_ENTERED


async def test_what_the_seal_binds(runtime: Runtime, tenant: TenantContext) -> None:
    """Tenant, schema, back end and transaction, under the cell's key: worked out anew from RFC 2104."""
    key = (await runtime.registry.cell(tenant.placement.cell)).secret._key
    async with inside(runtime, tenant) as connection:
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        began = await connection.fetchval("SELECT extract(epoch FROM transaction_timestamp())::text")
        seal = await seal_of(connection)
    schema = tenant.placement.schema_name
    bound = hmac.new(key, f"seal|{tenant.id}|{schema}|{pid}|{began}".encode(), hashlib.sha256).hexdigest()
    assert seal == f"{tenant.id}{schema}|{bound}"


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
