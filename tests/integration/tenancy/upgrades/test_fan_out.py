"""One revision into many schemas: all of them, or all that can, and always known which."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from strata.platform.database.lease import lease
from strata.tenancy.catalog.tables import UpgradeTroubleRow
from strata.tenancy.context import TenantContext
from strata.tenancy.entitlements.desk import NewGrant
from strata.tenancy.entitlements.grants import GrantKind
from strata.tenancy.model import SHARED_SCHEMA, Tier, UpgradeTroubleState
from strata.tenancy.provisioning.exclusion import UPGRADE_LEASE
from strata.tenancy.provisioning.upgrade_ledger import CANARY_FEATURE, UpgradeLedger
from strata.tenancy.provisioning.upgrade_report import (
    Outcome,
    OutcomeState,
    UpgradePlan,
    UpgradeReport,
    UpgradeRunningError,
)
from strata.tenancy.provisioning.upgrades import Upgrades
from tests.builders.platform import ACTOR, FIRST_CELL, SECOND_CELL, Tenantry, admin_of, as_admin
from tests.builders.upgrading import IMPATIENT, columns, has_column, release, upgrades_to
from tests.integration.tenancy.upgrades.conftest import ADD, COLUMN, Estate


@pytest.fixture
def upgrades(estate: Estate, tmp_path: Path) -> Upgrades:
    """To a release that adds a column."""
    return upgrades_to(estate.runtime, release(tmp_path / "release", tenant=[ADD]))


def states(report: UpgradeReport) -> dict[str, OutcomeState]:
    return {f"{each.cell}/{each.schema}": each.state for each in report.outcomes}


def place(tenant: TenantContext) -> str:
    return f"{tenant.placement.cell}/{tenant.placement.schema_name}"


async def troubled(estate: Estate) -> list[str]:
    """The cells of what was left behind, one for each schema."""
    async with estate.runtime.catalog_engine.connect() as connection:
        return list(await connection.scalars(select(UpgradeTroubleRow.cell)))


async def spoil(estate: Estate, tenant: TenantContext) -> None:
    """The column is there already: its revision fails in this schema."""
    async with admin_of(estate.runtime, tenant.placement.cell) as admin:
        await admin.execute(f'ALTER TABLE "{tenant.placement.schema_name}".product ADD COLUMN {COLUMN} text')


async def mend(estate: Estate, tenant: TenantContext) -> None:
    async with admin_of(estate.runtime, tenant.placement.cell) as admin:
        await admin.execute(f'ALTER TABLE "{tenant.placement.schema_name}".product DROP COLUMN {COLUMN}')


async def mark(estate: Estate, tenant: TenantContext) -> None:
    canary = NewGrant(GrantKind.FEATURE, CANARY_FEATURE, "goes first")
    await estate.runtime.entitlements.grant(tenant.slug, canary, ACTOR)


async def unmark(estate: Estate, tenant: TenantContext) -> None:
    await estate.runtime.entitlements.revoke(tenant.slug, GrantKind.FEATURE, CANARY_FEATURE, "done", ACTOR)


async def test_every_schema_on_every_tier_gets_it_once(estate: Estate, upgrades: Upgrades) -> None:
    behind = [each for each in await upgrades.survey.status() if not each.current]
    assert len(behind) == 10  # 7 schema tenants, `shared` in two cells, the dedicated one
    report = await upgrades.run(UpgradePlan())
    assert report.complete
    assert set(states(report)) == {f"{each.cell}/{each.schema}" for each in behind}
    for tenant in estate.tenants:
        assert (await columns(estate.runtime, tenant.placement.cell, tenant.placement.schema_name))[-1] == COLUMN
    assert all(each.current for each in await upgrades.survey.status())
    again = await upgrades.run(UpgradePlan())
    assert (again.outcomes, again.complete) == ([], True)


async def test_revisions_that_follow_each_other(estate: Estate, tmp_path: Path) -> None:
    location = release(
        tmp_path / "two", tenant=[ADD, f"UPDATE product SET {COLUMN} = 'red' WHERE {COLUMN} IS NULL"], cell=["SELECT 1"]
    )
    report = await upgrades_to(estate.runtime, location).run(UpgradePlan())
    assert report.complete
    heads = {each.head for each in report.outcomes if each.schema != "strata"}
    assert heads == {"9002"}
    assert sum(each.schema == "strata" for each in report.outcomes) == 3


async def test_a_dry_run_changes_nothing(estate: Estate, upgrades: Upgrades) -> None:
    report = await upgrades.run(UpgradePlan(dry_run=True, canary=2))
    assert set(states(report).values()) == {OutcomeState.PENDING}
    assert len(report.outcomes) == 10
    assert sum(each.canary for each in report.outcomes) == 2
    assert not any([await has_column(estate.runtime, tenant, COLUMN) for tenant in estate.tenants])


async def test_a_failure_is_one_tenants_alone(estate: Estate, upgrades: Upgrades) -> None:
    victim = estate.schemas[2]
    await spoil(estate, victim)
    report = await upgrades.run(UpgradePlan())
    assert not report.complete
    [failed] = report.of(OutcomeState.FAILED)
    assert (failed.schema, failed.attempts) == (victim.placement.schema_name, 1)
    assert "42701" in str(failed.error)
    assert len(report.of(OutcomeState.UPGRADED)) == 9
    [left] = [each for each in await upgrades.survey.status() if not each.current]
    assert left.trouble is not None
    assert (left.schema, left.trouble.state, left.trouble.attempts) == (
        victim.placement.schema_name,
        UpgradeTroubleState.FAILED,
        1,
    )
    assert not (await upgrades.run(UpgradePlan())).complete
    [left] = [each for each in await upgrades.survey.status() if not each.current]
    assert left.trouble is not None
    assert left.trouble.attempts == 2

    await mend(estate, victim)
    report = await upgrades.run(UpgradePlan())
    assert states(report) == {place(victim): OutcomeState.UPGRADED}
    assert not any(each.trouble for each in await upgrades.survey.status())


async def test_the_canary_stops_the_run(estate: Estate, upgrades: Upgrades) -> None:
    victim = estate.schemas[4]
    await mark(estate, victim)
    await spoil(estate, victim)
    report = await upgrades.run(UpgradePlan(canary=1))
    assert report.stopped_at_canary
    assert not report.complete
    assert states(report).pop(place(victim)) is OutcomeState.FAILED
    assert len(report.of(OutcomeState.PENDING)) == 9
    others = [tenant for tenant in estate.tenants if tenant is not victim]
    assert not any([await has_column(estate.runtime, tenant, COLUMN) for tenant in others])
    await mend(estate, victim)
    report = await upgrades.run(UpgradePlan(canary=1))
    assert report.complete
    await unmark(estate, victim)


async def test_the_canary_is_marked_then_small_and_never_many_tenants_first(estate: Estate, upgrades: Upgrades) -> None:
    marked, large = estate.schemas[5], estate.schemas[0]
    await mark(estate, marked)
    async with admin_of(estate.runtime, FIRST_CELL) as admin:
        schema = large.placement.schema_name
        await admin.execute(
            f'INSERT INTO "{schema}".quota (tenant_id, name) SELECT $1, n::text FROM generate_series(1, 5000) n',
            large.id,
        )
        await admin.execute(f'VACUUM "{schema}".quota')
    crowd = await Tenantry(estate.runtime)(Tier.SHARED)
    report = await upgrades.run(UpgradePlan(dry_run=True, canary=8))
    order = [each.schema for each in report.outcomes]
    assert order[0] == marked.placement.schema_name
    assert order[-3:] == [large.placement.schema_name, SHARED_SCHEMA, SHARED_SCHEMA]
    assert not any(each.canary for each in report.outcomes[-2:])
    await estate.runtime.provisioning.delete(crowd.slug, ACTOR)
    await unmark(estate, marked)


async def test_tables_in_use_are_tried_again(estate: Estate, upgrades: Upgrades) -> None:
    """A long transaction of one tenant: its schema waits in short tries, everybody else's is done."""
    busy = estate.schemas[1]
    async with admin_of(estate.runtime, FIRST_CELL) as admin:
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute(f'LOCK TABLE "{busy.placement.schema_name}".product IN ACCESS SHARE MODE')
        running = asyncio.create_task(upgrades.run(UpgradePlan()))
        while not await has_column(estate.runtime, estate.dedicated, COLUMN):  # noqa: ASYNC110 - what another process would see
            await asyncio.sleep(0.01)
        await transaction.rollback()
    report = await running
    assert report.complete
    attempts = {each.schema: each.attempts for each in report.outcomes}
    assert attempts.pop(busy.placement.schema_name) > 1
    assert set(attempts.values()) == {1}


async def test_tables_that_stay_in_use_are_given_up(estate: Estate, upgrades: Upgrades) -> None:
    busy = estate.schemas[1]
    async with admin_of(estate.runtime, FIRST_CELL) as admin, admin.transaction():
        await admin.execute(f'LOCK TABLE "{busy.placement.schema_name}".product IN ACCESS SHARE MODE')
        report = await upgrades.run(UpgradePlan())
    [failed] = report.of(OutcomeState.FAILED)
    assert (failed.schema, failed.attempts) == (busy.placement.schema_name, 3)
    assert "55P03" in str(failed.error)
    assert (await upgrades.run(UpgradePlan())).complete


async def test_a_statement_that_takes_too_long_is_ended(estate: Estate, tmp_path: Path) -> None:
    # Long enough for everybody else's statements, on a machine that is at its limit too.
    patient = {"statement_timeout_ms": 1500, "first_lock_timeout_ms": 1000, "lock_timeout_ms": 1000, "tries": 2}
    settings = IMPATIENT.model_copy(update=patient)
    slow = f"SELECT pg_sleep(60) WHERE current_schema() = '{estate.schemas[0].placement.schema_name}'"
    upgrades = upgrades_to(estate.runtime, release(tmp_path / "slow", tenant=[slow]), settings)
    report = await upgrades.run(UpgradePlan())
    [failed] = report.of(OutcomeState.FAILED)
    assert failed.schema == estate.schemas[0].placement.schema_name
    assert "57014" in str(failed.error)


async def test_a_cells_control_schema_comes_first(estate: Estate, tmp_path: Path) -> None:
    """Where it fails, that cell's tenants are not touched; other cells' are."""
    async with admin_of(estate.runtime, FIRST_CELL) as admin:
        await admin.execute("CREATE TABLE strata.hindrance ()")
    location = release(tmp_path / "cell", tenant=[ADD], cell=["CREATE TABLE strata.hindrance ()"])
    report = await upgrades_to(estate.runtime, location).run(UpgradePlan())
    try:
        failed = report.of(OutcomeState.FAILED)
        assert {each.cell for each in failed} == {FIRST_CELL}
        assert len(failed) == 8
        assert not await has_column(estate.runtime, estate.schemas[0], COLUMN)
        assert await has_column(estate.runtime, estate.elsewhere, COLUMN)
    finally:
        for cell in await estate.runtime.registry.cells():
            async with admin_of(estate.runtime, cell.name) as admin:
                await admin.execute("DROP TABLE IF EXISTS strata.hindrance")


async def test_a_cell_that_does_not_answer_holds_up_no_other(estate: Estate, upgrades: Upgrades) -> None:
    [database] = [each.database for each in await estate.runtime.registry.cells() if each.name == SECOND_CELL]
    async with as_admin(estate.platform.second, "postgres") as admin:
        await estate.runtime.engines.forget(SECOND_CELL)
        await admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        try:
            report = await upgrades.run(UpgradePlan())
            [silent] = [each for each in await upgrades.survey.status() if each.silence]
        finally:
            await admin.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
    [failed] = report.of(OutcomeState.FAILED)
    assert (failed.cell, failed.revision, silent.cell) == (SECOND_CELL, None, SECOND_CELL)
    assert len(report.of(OutcomeState.UPGRADED)) == 8
    assert (await upgrades.run(UpgradePlan())).complete


async def test_one_upgrade_at_a_time(estate: Estate, upgrades: Upgrades) -> None:
    async with lease(estate.runtime.catalog_url, UPGRADE_LEASE) as ours:
        assert ours
        with pytest.raises(UpgradeRunningError):
            await upgrades.run(UpgradePlan())
        waiting = asyncio.create_task(upgrades.cells())
        await asyncio.sleep(0.3)
        assert not waiting.done()
    assert (await waiting).complete


async def test_a_schema_from_the_future_is_left_alone(estate: Estate, upgrades: Upgrades) -> None:
    """A process of the release before may start again at any time; it is not to blame for what it does not know."""
    schema = estate.schemas[3].placement.schema_name
    async with admin_of(estate.runtime, FIRST_CELL) as admin:
        await admin.execute("UPDATE strata.revision SET revision = '9998' WHERE schema_name = $1", schema)
    report = await upgrades.run(UpgradePlan())
    assert report.complete
    assert [each.schema for each in report.of(OutcomeState.AHEAD)] == [schema]
    assert len(report.of(OutcomeState.UPGRADED)) == 9


@pytest.mark.slow
async def test_trouble_of_very_many_schemas_is_remembered_and_forgotten(estate: Estate) -> None:
    """One statement takes 32,767 parameters."""
    ledger = UpgradeLedger(estate.runtime.catalog_engine)
    failed = [
        Outcome("cell-9", f"t_{n}", OutcomeState.FAILED, "0001", "0002", attempts=1, error="«strata» comes first")
        for n in range(17_000)
    ]
    await ledger.note(failed)
    assert len([cell for cell in await troubled(estate) if cell == "cell-9"]) == len(failed)
    await ledger.note([msgspec.structs.replace(each, state=OutcomeState.UPGRADED) for each in failed])
    assert not [cell for cell in await troubled(estate) if cell == "cell-9"]
