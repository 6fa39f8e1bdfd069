"""An administrator alters a table of a tenant that is moving: the move ends with the reason, and the tenant works."""

from __future__ import annotations

import pytest

from strata.migrator import faults
from strata.migrator.phases import Phase, Wish
from strata.platform.database.names import quoted
from strata.tenancy.model import Tier
from tests.builders.moving import Movers
from tests.builders.platform import ACTOR, SECOND_CELL, Tenantry, admin_of
from tests.builders.site import Site
from tests.builders.traffic import assert_kept, traffic

# What the stream sees of a column that only one side has, and what the comparison sees of one in a table that is quiet.
CODES = {"product": "moving-table-changed", "idempotency": "verification-failed"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "point"),
    [
        ("product", "copying.slot"),
        ("product", "catching_up.begin"),
        ("idempotency", "copying.copied"),
        ("idempotency", "catching_up.begin"),
    ],
)
async def test_a_column_that_is_added_meanwhile_ends_the_move_and_not_the_tenant(
    movers: Movers, mover_tenant: Tenantry, moving_site: Site, table: str, point: str
) -> None:
    context = await mover_tenant(Tier.SCHEMA)
    column = f"ALTER TABLE {quoted(context.placement.schema_name)}.{quoted(table)}"

    async def alter() -> None:
        async with admin_of(movers.runtime, context.placement.cell) as admin:
            await admin.execute(f"{column} ADD COLUMN shade text")
            await admin.execute(f"UPDATE {quoted(context.placement.schema_name)}.{quoted(table)} SET shade = 'dark'")

    faults.arm(point, alter)
    async with traffic(moving_site, context, writers=2) as ledger:
        move = await movers.start(context, Tier.SCHEMA, cell=SECOND_CELL)
        failed = await movers.work(move)
        assert (failed.phase, failed.progress.get("waiting")) == (Phase.FAILED, None)
        assert failed.failure is not None
        assert failed.failure.code == CODES[table]
        # Issue 4, point 8: what failed, at which step, the tenant's state, the next command.
        assert table in failed.failure.detail
        assert failed.failure.phase in {Phase.COPYING, Phase.CATCHING_UP, Phase.VERIFYING}
        assert f"«{context.slug}» works where it was, {failed.source}" in failed.failure.tenant
        assert f"strata migrate retry {move.id}" in failed.failure.next
        assert f"strata migrate cancel {move.id}" in failed.failure.next
        # Nothing makes the server keep its log while the move waits for a person.
        assert {"slots", "publications", "origins"}.isdisjoint(await movers.remains(move.id))
        async with admin_of(movers.runtime, context.placement.cell) as admin:
            await admin.execute(f"{column} DROP COLUMN shade")
        await movers.desk.ask(move.id, Wish.RETRY, ACTOR)
        assert (await movers.work(move)).phase is Phase.COMPLETED
    await assert_kept(movers.runtime, context, ledger)
    assert await movers.remains(move.id) == {}
    assert await movers.homes_of(context) == {SECOND_CELL: [f"t_{context.id.hex}"]}
