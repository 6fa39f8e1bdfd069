"""An upgrade that dies is run again; an upgrade and a move keep off each other's schemas."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from strata.platform.ids import new_id
from strata.tenancy.catalog.tables import ClaimRow
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Holder
from strata.tenancy.provisioning.exclusion import (
    Subject,
    TenantBusyError,
    claim,
    claims,
    schema_subject,
    tenant_subject,
)
from strata.tenancy.provisioning.exclusion import release as give_back
from strata.tenancy.provisioning.upgrade_report import OutcomeState, UpgradePlan
from tests.builders.command import clean_environment, environment_for
from tests.builders.platform import FIRST_CELL, admin_of
from tests.builders.upgrading import has_column, release, upgrades_to
from tests.integration.tenancy.upgrades.conftest import ADD, COLUMN, Estate

if TYPE_CHECKING:
    import asyncpg

WITHIN_S = 90.0


@asynccontextmanager
async def upgrading(estate: Estate, location: Path, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.builders.release_process", str(location), "db", "upgrade"),
        cwd=Path(__file__).parents[4],
        env=clean_environment(environment_for(estate.platform) | settings),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'"


async def until_waiting(admin: asyncpg.Connection, process: asyncio.subprocess.Process, *, waiting: bool) -> None:
    """Until somebody in this cluster waits for a table, or nobody does any more."""
    while bool(await admin.fetchval(_WAITING)) is not waiting:
        await asyncio.sleep(0.02)
        assert not waiting or process.returncode is None, (await process.communicate())[1]


def home_of(tenant: TenantContext) -> Subject:
    return schema_subject(tenant.placement.cell, tenant.placement.schema_name)


async def held(estate: Estate) -> set[str]:
    async with estate.runtime.catalog_engine.connect() as connection:
        return set(await connection.scalars(select(ClaimRow.subject)))


async def test_killed_and_run_again(estate: Estate, tmp_path: Path) -> None:
    """Killed while it waits for one tenant's table: what was done stays done, the rest is done by the next run."""
    location = release(tmp_path / "release", tenant=[ADD])
    victim = sorted(estate.schemas, key=lambda tenant: tenant.placement.schema_name)[3]
    subjects = [tenant_subject(victim.id), home_of(victim)]
    patience = {
        "STRATA_UPGRADES__JOBS": "1",
        "STRATA_UPGRADES__BATCH": "3",
        "STRATA_UPGRADES__FIRST_LOCK_TIMEOUT_MS": "60000",
        "STRATA_UPGRADES__LOCK_TIMEOUT_MS": "60000",
    }
    async with admin_of(estate.runtime, FIRST_CELL) as admin:
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute(f'LOCK TABLE "{victim.placement.schema_name}".product IN ACCESS SHARE MODE')
        async with upgrading(estate, location, **patience) as process, asyncio.timeout(WITHIN_S):
            await until_waiting(admin, process, waiting=True)
            async with estate.runtime.catalog_engine.connect() as connection:
                with pytest.raises(TenantBusyError) as refused:
                    await claim(connection, Holder.MOVE, "one", subjects)
            assert refused.value.held.holder is Holder.UPGRADE
            process.send_signal(signal.SIGKILL)
            await process.wait()
            # The dead one's back end looks whether anybody is there, and gives up: it must not go on behind a move.
            await until_waiting(admin, process, waiting=False)
        await transaction.rollback()
    done = [await has_column(estate.runtime, tenant, COLUMN) for tenant in estate.tenants]
    assert any(done)
    assert not all(done)
    assert home_of(victim) in await held(estate)

    # The claim is worth what its process is: nothing. A move may have the tenant now.
    async with estate.runtime.catalog_engine.begin() as connection:
        await claim(connection, Holder.MOVE, "one", subjects)
        await give_back(connection, Holder.MOVE, "one")
    report = await upgrades_to(estate.runtime, location).run(UpgradePlan())
    assert report.complete
    assert 0 < len(report.outcomes) < 10
    assert all([await has_column(estate.runtime, tenant, COLUMN) for tenant in estate.tenants])
    assert await held(estate) == set()


async def test_a_moving_tenants_schema_is_left_to_its_move(estate: Estate, tmp_path: Path) -> None:
    moving, location = estate.schemas[0], release(tmp_path / "release", tenant=[ADD])
    move = str(new_id())
    async with estate.runtime.catalog_engine.begin() as connection:
        await claim(connection, Holder.MOVE, move, [tenant_subject(moving.id), home_of(moving)])
    upgrades = upgrades_to(estate.runtime, location)
    report = await upgrades.run(UpgradePlan())
    [deferred] = report.of(OutcomeState.DEFERRED)
    assert deferred.schema == moving.placement.schema_name
    assert move in str(deferred.error)
    assert not report.complete
    assert len(report.of(OutcomeState.UPGRADED)) == 9
    assert not await has_column(estate.runtime, moving, COLUMN)
    async with estate.runtime.catalog_engine.begin() as connection:
        await give_back(connection, Holder.MOVE, move)
    assert (await upgrades.run(UpgradePlan())).complete


async def test_of_two_moves_one_has_the_tenant_and_both_the_schema(estate: Estate) -> None:
    """Many tenants leave `shared` side by side; none is moved twice at once."""
    first, second = [tenant_subject(estate.shared.id), home_of(estate.shared)], [home_of(estate.shared)]
    engine = estate.runtime.catalog_engine
    async with engine.begin() as connection:
        await claim(connection, Holder.MOVE, "one", first)
        await claim(connection, Holder.MOVE, "one", first)
        await claim(connection, Holder.MOVE, "two", second)
        with pytest.raises(TenantBusyError):
            await claim(connection, Holder.MOVE, "three", first)
        assert len(await claims(connection, first)) == 3
        await connection.rollback()
    assert await held(estate) == set()


async def test_of_many_that_claim_at_once_one_does(estate: Estate) -> None:
    subject = [tenant_subject(estate.dedicated.id)]

    async def move(reference: str) -> str | None:
        async with estate.runtime.catalog_engine.begin() as connection:
            try:
                await claim(connection, Holder.MOVE, reference, subject)
            except TenantBusyError:
                return None
        return reference

    winners = [each for each in await asyncio.gather(*(move(str(number)) for number in range(8))) if each]
    assert len(winners) == 1
    async with estate.runtime.catalog_engine.begin() as connection:
        await give_back(connection, Holder.MOVE, winners[0])
