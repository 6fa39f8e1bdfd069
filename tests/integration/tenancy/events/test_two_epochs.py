"""A tenant that moves to another cell: what it told in its old home comes first, wherever rows are left."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker

from strata.runtime import Runtime
from strata.tenancy.catalog.tables import CellRow
from strata.tenancy.events.remainders import Outboxes
from strata.tenancy.model import Tier
from tests.builders.cutting_over import cut_over, remainders
from tests.builders.events import Notebook, all_told, note, told, until, waiting
from tests.builders.platform import FIRST_CELL, SECOND_CELL, Tenantry


async def test_the_new_home_waits_for_the_old_ones_outbox(runtime: Runtime, tenant_on: Tenantry) -> None:
    old, notebook = await tenant_on(Tier.SHARED), Notebook()
    outboxes = Outboxes(runtime.catalog_engine, runtime.registry)
    notebook.out_of_reach = True
    async with told(runtime, notebook):
        await note(runtime, old, 1, 2)
        await until(lambda: notebook.calls > 0, "no try")
        new = await cut_over(runtime, old, SECOND_CELL)
        await note(runtime, new, 3)
        # From a context of before the move, as a cache may have it: it ends up in the new home.
        await note(runtime, old, 4)
        assert await outboxes.pending(old.id, new.placement.epoch)
        await asyncio.sleep(0.3)
        assert notebook.numbers(old) == []
        notebook.out_of_reach = False
        await all_told(runtime, new)
    assert notebook.numbers(old) == [1, 2, 3, 4]
    assert [each.place.epoch for each in notebook.heard[old.id]] == [1, 1, 2, 2]
    assert await waiting(runtime, old, FIRST_CELL) == 0
    assert not await outboxes.pending(old.id, new.placement.epoch)
    assert await remainders(runtime, old) == 0


async def test_there_and_back_again(runtime: Runtime, tenant_on: Tenantry) -> None:
    """Three epochs in two cells, none of them told before the last: the first cell has the first and the third."""
    first, notebook = await tenant_on(Tier.SHARED), Notebook()
    await note(runtime, first, 1)
    second = await cut_over(runtime, first, SECOND_CELL)
    await note(runtime, second, 2)
    third = await cut_over(runtime, second, FIRST_CELL)
    await note(runtime, third, 3)
    assert await remainders(runtime, first) == 2
    async with told(runtime, notebook):
        await all_told(runtime, third)
        await note(runtime, third, 4)
        await all_told(runtime, third)
    assert notebook.numbers(first) == [1, 2, 3, 4]
    assert [each.place.epoch for each in notebook.heard[first.id]] == [1, 2, 3, 3]


async def test_a_cell_with_events_left_in_it_cannot_be_forgotten(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    await note(runtime, context, 1)
    new = await cut_over(runtime, context, SECOND_CELL)
    with pytest.raises(IntegrityError) as refusal:
        async with async_sessionmaker(runtime.catalog_engine).begin() as session:
            await session.execute(delete(CellRow).where(CellRow.name == FIRST_CELL))
    assert getattr(refusal.value.orig, "sqlstate", None) == asyncpg.ForeignKeyViolationError.sqlstate
    notebook = Notebook()
    async with told(runtime, notebook):
        await until(lambda: notebook.numbers(context) == [1], "left behind")
    assert await waiting(runtime, new) == 0
