"""Making and removing tenants on each tier: all of it or nothing, looked for in pg_catalog."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
from sqlalchemy import text

from strata.platform.errors import ConflictError, InvalidInputError, StrataError
from strata.runtime import Runtime
from strata.tenancy.catalog.tables import DrainKind
from strata.tenancy.errors import TenantClosingError, UnknownTenantError
from strata.tenancy.model import TenantStatus, Tier
from strata.tenancy.provisioning import homes
from strata.tenancy.provisioning.placing import NoRoomError
from strata.tenancy.provisioning.tenants import InUseError, NewTenant
from tests.builders.platform import ACTOR, FIRST_CELL, Platform, Tenantry, admin_of, as_admin
from tests.builders.rows import fill, fingerprint, tables_of
from tests.builders.traces import Traces, traces_of

if TYPE_CHECKING:
    from strata.tenancy.context import TenantContext


def new_slug() -> str:
    return f"p{secrets.token_hex(5)}"


def wanted(tier: Tier, slug: str) -> NewTenant:
    return NewTenant(slug=slug, name=slug, tier=tier, cell=None if tier is Tier.DEDICATED else FIRST_CELL)


@pytest.fixture
async def before(platform: Platform, runtime: Runtime) -> Traces:
    return await traces_of(platform, runtime)


@pytest.mark.parametrize("tier", Tier)
async def test_made_and_removed_without_a_trace(
    runtime: Runtime, tenant_on: Tenantry, platform: Platform, before: Traces, tier: Tier
) -> None:
    tenant = await tenant_on(tier)
    async with admin_of(runtime, tenant.placement.cell) as admin:
        tables = await tables_of(admin, tenant.placement.schema_name)
        await fill(admin, tables, tenant.id)
        assert len(await fingerprint(admin, tenant.placement.schema_name, tenant.id)) == len(tables) >= 11
    assert await traces_of(platform, runtime) != before

    removal = await runtime.provisioning.delete(tenant.slug, ACTOR)

    assert removal.id == tenant.id
    assert removal.remains
    assert not any(removal.remains.values())
    assert await traces_of(platform, runtime) == before
    with pytest.raises(UnknownTenantError):
        await runtime.contexts.get_by_slug(tenant.slug)
    actions = [row.action for row in await runtime.provisioning.history(tenant.id)]
    assert actions == ["tenant.create", "tenant.delete"]


@pytest.mark.parametrize("tier", [Tier.SHARED, Tier.SCHEMA])
async def test_neighbours_are_untouched_by_a_removal(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    tenant, neighbour = await tenant_on(tier), await tenant_on(tier)
    schema = neighbour.placement.schema_name
    async with admin_of(runtime, FIRST_CELL) as admin:
        await fill(admin, await tables_of(admin, tenant.placement.schema_name), tenant.id)
        await fill(admin, await tables_of(admin, schema), neighbour.id)
        rows = await fingerprint(admin, schema, neighbour.id)
        await runtime.provisioning.delete(tenant.slug, ACTOR)
        assert await fingerprint(admin, schema, neighbour.id) == rows
    async with runtime.tenants.reading(neighbour) as session:
        assert await session.scalar(text("SELECT count(*) FROM product")) == 1


@pytest.mark.parametrize("tier", Tier)
async def test_a_slug_can_be_had_again(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    first = await tenant_on(tier)
    async with runtime.tenants.transaction(first) as session:
        await session.execute(text("INSERT INTO product (sku, name) VALUES ('old', 'x')"))
    await runtime.provisioning.delete(first.slug, ACTOR)
    second = await tenant_on(tier, slug=first.slug)
    assert second.id != first.id
    async with runtime.tenants.reading(second) as session:
        assert await session.scalar(text("SELECT count(*) FROM product")) == 0
    with pytest.raises((StrataError, UnknownTenantError)):
        async with runtime.tenants.transaction(first) as session:
            await session.execute(text("SELECT 1"))


@pytest.mark.parametrize("tier", Tier)
async def test_creating_is_idempotent(runtime: Runtime, platform: Platform, tier: Tier) -> None:
    new = wanted(tier, new_slug())
    first = await runtime.provisioning.create(new, ACTOR)
    made = await traces_of(platform, runtime)
    again = await runtime.provisioning.create(new, ACTOR)
    assert (first.created, again.created, again.id) == (True, False, first.id)
    assert await traces_of(platform, runtime) == made
    with pytest.raises(ConflictError):
        await runtime.provisioning.create(wanted(Tier.SHARED if tier is Tier.SCHEMA else Tier.SCHEMA, new.slug), ACTOR)


@pytest.mark.parametrize("tier", Tier)
async def test_of_many_that_create_one_slug_one_does(
    runtime: Runtime, platform: Platform, before: Traces, tier: Tier
) -> None:
    new = wanted(tier, new_slug())
    outcomes = await asyncio.gather(
        *(runtime.provisioning.create(new, ACTOR) for _ in range(8)), return_exceptions=True
    )
    assert {type(each).__name__ for each in outcomes} <= {"Created", "BusyError"}
    created = [each for each in outcomes if not isinstance(each, BaseException)]
    assert sum(each.created for each in created) == 1
    assert len({each.id for each in created}) == 1
    await runtime.provisioning.delete(new.slug, ACTOR)
    assert await traces_of(platform, runtime) == before


async def test_racers_do_not_overfill_a_cell(runtime: Runtime, platform: Platform) -> None:
    """All have seen the cell empty and wait for its row; as each gets it, the one before has taken a place."""
    name = f"tiny-{secrets.token_hex(3)}"
    await runtime.cells.add_shared(name, "one", actor=ACTOR, capacity=3)
    news = [NewTenant(slug=new_slug(), name="x", tier=Tier.SHARED, cell=name) for _ in range(9)]
    try:
        async with as_admin(platform.first, f"{platform.prefix}_catalog") as catalog, catalog.transaction():
            await catalog.execute("SELECT 1 FROM cell WHERE name = $1 FOR UPDATE", name)
            racing = [asyncio.create_task(runtime.provisioning.create(each, ACTOR)) for each in news]
            await asyncio.sleep(0.7)
        outcomes = await asyncio.gather(*racing, return_exceptions=True)
        made = [new for new, each in zip(news, outcomes, strict=True) if not isinstance(each, BaseException)]
        assert len(made) == 3
        assert {type(each) for each in outcomes if isinstance(each, BaseException)} == {NoRoomError}
        for each in made:
            await runtime.provisioning.delete(each.slug, ACTOR)
    finally:
        await runtime.drains.begin(DrainKind.CELL, name, ACTOR)


async def test_a_plan_that_does_not_offer_the_tier_is_refused(
    runtime: Runtime, platform: Platform, before: Traces
) -> None:
    with pytest.raises(InvalidInputError):
        await runtime.provisioning.create(NewTenant(slug=new_slug(), name="x", tier=Tier.DEDICATED, plan="free"), ACTOR)
    assert await traces_of(platform, runtime) == before


# Dying half way, by statements that fail and back ends that are killed

_REFUSAL = "CREATE FUNCTION strata.refuse() RETURNS {kind} LANGUAGE plpgsql AS $$ BEGIN RAISE 'on purpose'; END $$"


@asynccontextmanager
async def refused(runtime: Runtime, what: str) -> AsyncIterator[None]:
    """Within the block the first cell refuses the command with that tag, or INSERTs into the fence."""
    async with admin_of(runtime, FIRST_CELL) as admin:
        if what == "fence":
            await admin.execute(_REFUSAL.format(kind="trigger"))
            await admin.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON strata.fence FOR EACH ROW EXECUTE FUNCTION strata.refuse()"
            )
        else:
            await admin.execute(_REFUSAL.format(kind="event_trigger"))
            await admin.execute(
                f"CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN ('{what}') EXECUTE FUNCTION strata.refuse()"
            )
        try:
            yield
        finally:
            await admin.execute("DROP EVENT TRIGGER IF EXISTS refuse")
            await admin.execute("DROP FUNCTION strata.refuse() CASCADE")


@pytest.mark.parametrize(
    ("tier", "what"),
    [(Tier.SHARED, "fence"), (Tier.SCHEMA, "CREATE SCHEMA"), (Tier.SCHEMA, "CREATE POLICY"), (Tier.SCHEMA, "fence")],
)
async def test_a_statement_that_fails_leaves_nothing(
    runtime: Runtime, platform: Platform, before: Traces, tier: Tier, what: str
) -> None:
    new = wanted(tier, new_slug())
    async with refused(runtime, what):
        with pytest.raises(asyncpg.RaiseError, match="on purpose"):
            await runtime.provisioning.create(new, ACTOR)
    assert await traces_of(platform, runtime) == before
    assert (await runtime.provisioning.create(new, ACTOR)).created


@pytest.mark.parametrize("tier", Tier)
async def test_a_back_end_that_is_killed_leaves_nothing(
    runtime: Runtime, platform: Platform, before: Traces, tier: Tier
) -> None:
    new = wanted(tier, new_slug())
    async with _killer(platform, tier):
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, StrataError, OSError)):
            await runtime.provisioning.create(new, ACTOR)
    assert await traces_of(platform, runtime) == before
    assert (await runtime.provisioning.create(new, ACTOR)).created


@asynccontextmanager
async def _killer(platform: Platform, tier: Tier) -> AsyncIterator[None]:
    """Ends the first back end that does something in the cell (its fence is locked, so that it waits there)."""
    pattern = (
        f"{platform.prefix}_dedicated_%"
        if tier is Tier.DEDICATED
        else f"{platform.prefix}_{FIRST_CELL}".replace("-", "_")
    )
    done = asyncio.Event()

    async def kill() -> None:
        hold = asyncio.Event()
        async with as_admin(platform.first, "postgres") as one, as_admin(platform.second, "postgres") as two:
            while not done.is_set():
                for admin in (one, two):
                    killed = await admin.fetchval(
                        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname LIKE $1"
                        " AND usename = current_user AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                        " AND (wait_event_type = 'Lock' OR datname LIKE '%dedicated%') AND state = 'active'",
                        pattern,
                    )
                    if killed:
                        return
                await asyncio.sleep(0.001)
            hold.set()

    killing = asyncio.create_task(kill())
    try:
        if tier is Tier.DEDICATED:
            yield
        else:
            async with as_admin(platform.first, pattern) as admin:
                await admin.execute("BEGIN; LOCK TABLE strata.fence IN SHARE ROW EXCLUSIVE MODE")

                async def let_go() -> None:
                    await killing
                    await admin.execute("ROLLBACK")

                letting_go = asyncio.create_task(let_go())
                yield
                await letting_go
    finally:
        done.set()
        await killing


@pytest.mark.parametrize("tier", Tier)
async def test_cancelled_at_any_moment_nothing_remains_after_a_sweep(
    runtime: Runtime, platform: Platform, before: Traces, tier: Tier
) -> None:
    for delay_s in (0.005, 0.02, 0.04, 0.08):
        slug = new_slug()
        creating = asyncio.create_task(runtime.provisioning.create(wanted(tier, slug), ACTOR))
        await asyncio.sleep(delay_s)
        creating.cancel()
        await asyncio.gather(creating, return_exceptions=True)
        # Cancelled after its last commit, or too late, it has made the tenant whole.
        if any(found.slug == slug for found in await runtime.directory.find(status=TenantStatus.ACTIVE, search=slug)):
            await runtime.provisioning.delete(slug, ACTOR)
    for _ in range(40):
        await runtime.provisioning.sweep()
        if await traces_of(platform, runtime) == before:
            break
        await asyncio.sleep(0.1)
    assert await traces_of(platform, runtime) == before


# Deleting what is in use


@pytest.mark.parametrize("tier", [Tier.SHARED, Tier.SCHEMA])
async def test_a_deletion_waits_for_who_is_inside(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    tenant = await tenant_on(tier)
    async with runtime.tenants.transaction(tenant) as session:
        await session.execute(text("INSERT INTO product (sku, name) VALUES ('last', 'x')"))
        deleting = asyncio.create_task(runtime.provisioning.delete(tenant.slug, ACTOR))
        while await _gets_in(runtime, tenant):  # noqa: ASYNC110 - what is waited for is in the database
            await asyncio.sleep(0.02)
        assert not deleting.done()
        await _nobody_else_gets_in(runtime, tenant)
    removal = await deleting
    assert not any(removal.remains.values())


async def _gets_in(runtime: Runtime, tenant: TenantContext) -> bool:
    try:
        async with runtime.tenants.transaction(tenant) as session:
            await session.execute(text("SELECT 1"))
    except TenantClosingError:
        return False
    return True


async def _nobody_else_gets_in(runtime: Runtime, tenant: TenantContext) -> None:
    """Not even with the context of before, and not after waiting as if for the end of a move."""
    with pytest.raises(TenantClosingError):
        async with runtime.tenants.transaction(tenant) as session:
            await session.execute(text("SELECT 1"))


@pytest.mark.parametrize("tier", [Tier.SHARED, Tier.SCHEMA])
async def test_a_deletion_that_waited_in_vain_says_so_and_is_done_by_the_sweep(
    runtime: Runtime, tenant_on: Tenantry, monkeypatch: pytest.MonkeyPatch, tier: Tier
) -> None:
    monkeypatch.setattr(homes, "LOCK_TIMEOUT", "200ms")
    tenant = await tenant_on(tier)
    async with runtime.tenants.transaction(tenant) as session:
        await session.execute(text("INSERT INTO product (sku, name) VALUES ('last', 'x')"))
        with pytest.raises(InUseError):
            await runtime.provisioning.delete(tenant.slug, ACTOR)
        assert tenant.slug not in await runtime.provisioning.sweep()
    assert (await runtime.directory.get(tenant.slug)).status is TenantStatus.CLOSING
    assert tenant.slug in await runtime.provisioning.sweep()
    with pytest.raises(UnknownTenantError):
        await runtime.directory.get(tenant.slug)


async def test_a_dedicated_database_goes_with_whoever_is_inside(runtime: Runtime, tenant_on: Tenantry) -> None:
    tenant = await tenant_on(Tier.DEDICATED)
    with pytest.raises(StrataError):
        async with runtime.tenants.transaction(tenant) as session:
            await session.execute(text("INSERT INTO product (sku, name) VALUES ('last', 'x')"))
            await runtime.provisioning.delete(tenant.slug, ACTOR)
            await session.execute(text("SELECT 1"))
    with pytest.raises((TenantClosingError, UnknownTenantError, StrataError)):
        async with runtime.tenants.transaction(tenant) as session:
            await session.execute(text("SELECT 1"))
