"""What a standby's own database refuses, whoever asks and whatever they have heard (docs/adr/0009-standby-reads.md)."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import asyncpg
import msgspec
import pytest

from strata.platform.database.administration import administrator
from strata.platform.database.lsn import Lsn, parse_lsn
from strata.platform.embedded import EmbeddedStandby
from strata.platform.errors import ConfigurationError
from strata.platform.ids import new_id
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from strata.tenancy.replicas.closing import NotAtThisEpochError, close_to_standbys, reopen_to_standbys
from strata.tenancy.replicas.lease import OVER_AFTER_S, SPAN_S
from tests.builders.platform import SECOND_CELL, Tenantry, admin_of
from tests.builders.standbys import Replicated, register

ASK_THE_PRIMARY = "SM006"


async def add_product(replicated: Replicated, tenant: TenantContext, sku: str) -> None:
    async with replicated.runtime.tenants.transaction(tenant) as session:
        connection = await session.connection()
        await connection.exec_driver_sql("INSERT INTO product (sku, name) VALUES ($1, 'x')", (sku,))


async def skus_on_standby(replicated: Replicated, message: str) -> list[str]:
    async with replicated.as_application() as connection:
        await connection.execute(message)
        return [row["sku"] for row in await connection.fetch("SELECT sku FROM product ORDER BY sku")]


async def refusal(replicated: Replicated, message: str, *, standby: bool = True) -> str:
    async with replicated.as_application(standby=standby) as connection:
        with pytest.raises(asyncpg.PostgresError) as refused:
            await connection.execute(message)
        return refused.value.sqlstate or ""


@pytest.mark.parametrize("tier", [Tier.SHARED, Tier.SCHEMA])
async def test_it_shows_the_tenant_its_own_rows_and_takes_none(
    replicated: Replicated, replicated_tenant: Tenantry, tier: Tier
) -> None:
    tenant, neighbour = [await replicated_tenant(tier, cell=SECOND_CELL) for _ in range(2)]
    await add_product(replicated, tenant, "mine")
    await add_product(replicated, neighbour, "theirs")
    await replicated.lease()
    assert await skus_on_standby(replicated, await replicated.message(tenant)) == ["mine"]
    async with replicated.as_application() as connection:
        await connection.execute(await replicated.message(tenant))
        with pytest.raises(asyncpg.PostgresError) as refused:
            await connection.execute("INSERT INTO product (sku, name) VALUES ('b', 'b')")
        assert refused.value.sqlstate == "25006"


async def test_it_lets_nobody_in_on_a_wrong_word(replicated: Replicated, replicated_tenant: Tenantry) -> None:
    tenant, neighbour = [await replicated_tenant(Tier.SHARED, cell=SECOND_CELL) for _ in range(2)]
    await replicated.lease()
    right = await replicated.message(tenant)
    placement = msgspec.structs.replace(tenant.placement, epoch=2)
    later = await replicated.message(msgspec.structs.replace(tenant, placement=placement))
    secret = (await replicated.runtime.registry.cell(SECOND_CELL)).secret
    forged = right.replace(secret.capability(tenant.id, 1), secret.capability(neighbour.id, 1))
    assert await refusal(replicated, forged) == "SM004"
    assert await refusal(replicated, later) == ASK_THE_PRIMARY
    assert await refusal(replicated, await replicated.message(tenant, standby=new_id())) == ASK_THE_PRIMARY
    assert await refusal(replicated, right.replace("REPEATABLE READ", "READ COMMITTED")) == ASK_THE_PRIMARY
    assert await refusal(replicated, right, standby=False) == ASK_THE_PRIMARY
    async with replicated.as_application(standby=False) as connection:
        for forbidden in ("SELECT strata.lease_standbys('{}')", "SELECT * FROM strata.standby_lease"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)


async def test_it_waits_for_no_write_but_says_that_it_lacks_it(
    replicated: Replicated, replicated_tenant: Tenantry
) -> None:
    tenant = await replicated_tenant(Tier.SHARED, cell=SECOND_CELL)
    await replicated.lease()
    async with replicated.paused():
        await add_product(replicated, tenant, "late")
        async with admin_of(replicated.runtime, SECOND_CELL) as admin:
            written = parse_lsn(await admin.fetchval("SELECT pg_current_wal_insert_lsn()::text"))
        assert await refusal(replicated, await replicated.message(tenant, after=written)) == ASK_THE_PRIMARY
        # Another client's own history does not ask for that write.
        assert await skus_on_standby(replicated, await replicated.message(tenant, after=Lsn(1))) == []
    assert await skus_on_standby(replicated, await replicated.message(tenant, after=written)) == ["late"]


async def test_one_that_replays_nothing_is_shut_before_a_cut_over_and_knows_nothing_of_it(
    replicated: Replicated, replicated_tenant: Tenantry
) -> None:
    """The process that asks has not heard of anything either: it presents what was right."""
    tenant = await replicated_tenant(Tier.SHARED, cell=SECOND_CELL)
    message = await replicated.message(tenant)
    await replicated.lease()
    async with replicated.paused(), admin_of(replicated.runtime, SECOND_CELL) as admin:
        assert await skus_on_standby(replicated, message) == []
        began = time.monotonic()
        await close_to_standbys(admin, tenant.id, 1)
        assert time.monotonic() - began <= OVER_AFTER_S + 1
        # What it has replayed still says that the tenant is here; its lease is what has run out.
        async with replicated.on_standby() as there:
            assert await there.fetchval(
                "SELECT state = 'active' AND standby_closed_epoch IS NULL FROM strata.fence WHERE tenant_id = $1",
                tenant.id,
            )
        assert await refusal(replicated, message) == ASK_THE_PRIMARY
        began = time.monotonic()
        await close_to_standbys(admin, tenant.id, 1)
        assert time.monotonic() - began < SPAN_S / 2, "no lease is left to wait for"
    await replicated.lease()
    assert await refusal(replicated, message) == ASK_THE_PRIMARY, "closed, as replayed"
    async with admin_of(replicated.runtime, SECOND_CELL) as admin:
        await reopen_to_standbys(admin, tenant.id, 1)
        with pytest.raises(NotAtThisEpochError):
            await close_to_standbys(admin, tenant.id, 9)
    await replicated.caught_up()
    assert await skus_on_standby(replicated, message) == []


async def test_closing_sees_a_lease_that_is_being_granted(replicated: Replicated, replicated_tenant: Tenantry) -> None:
    """Committed in the log before the closing, it must be waited for, also when nobody could see it yet."""
    tenant = await replicated_tenant(Tier.SHARED, cell=SECOND_CELL)
    async with admin_of(replicated.runtime, SECOND_CELL) as keeper, admin_of(replicated.runtime, SECOND_CELL) as mover:
        await keeper.execute("TRUNCATE strata.standby_lease")
        granting = keeper.transaction()
        await granting.start()
        await keeper.execute("SELECT strata.lease_standbys($1)", [new_id()])
        await mover.execute("SET lock_timeout = '200ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await close_to_standbys(mover, tenant.id, 1)
        await granting.commit()
        began = time.monotonic()
        await close_to_standbys(mover, tenant.id, 1)
        assert time.monotonic() - began > SPAN_S / 2


async def test_a_promoted_one_serves_nobody(replicated: Replicated, replicated_tenant: Tenantry) -> None:
    tenant = await replicated_tenant(Tier.SHARED, cell=SECOND_CELL)
    message = await replicated.message(tenant)
    with tempfile.TemporaryDirectory(prefix="strata-promoted-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        with EmbeddedStandby(Path(folder) / "data", "promoted", replicated.primary.dsn(), durable=False) as promoted:
            there = msgspec.structs.replace(replicated, standby=promoted)
            url = (await replicated.runtime.registry.admin_url_of_cell(SECOND_CELL)).set(port=promoted.port)
            async with administrator(url) as admin:
                await replicated.lease()
                async with asyncio.timeout(SPAN_S):
                    while not await admin.fetchval(  # noqa: ASYNC110 - the event is in PostgreSQL
                        "SELECT max(leased_until) > clock_timestamp() FROM strata.standby_lease"
                    ):
                        await asyncio.sleep(0.01)
                assert await skus_on_standby(there, message) == []
                await admin.execute("SELECT pg_promote()")
                assert await refusal(there, message) == ASK_THE_PRIMARY
                with pytest.raises(asyncpg.PostgresError) as refused:
                    await admin.execute("SELECT strata.lease_standbys($1)", [new_id()])
                assert refused.value.sqlstate == "SM003"
            with pytest.raises(ConfigurationError, match="no standby"):
                await register(replicated.runtime, promoted, "other")
