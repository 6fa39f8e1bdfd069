"""Schemas kept ready: taken once, complete, and cleared when somebody died over them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import select, text, update

from strata.platform.ids import new_id
from strata.tenancy.catalog.tables import SpareRow
from strata.tenancy.cell.inspection import table_weaknesses
from strata.tenancy.model import Tier, schema_for
from strata.tenancy.provisioning.stock import Stock
from strata.tenancy.provisioning.tenants import NewTenant
from tests.builders.platform import ACTOR, FIRST_CELL, SECOND_CELL, admin_of
from tests.builders.upgrading import withdraw
from tests.integration.tenancy.upgrades.conftest import COLUMN, Estate


@pytest.fixture
async def stock(estate: Estate) -> AsyncIterator[Stock]:
    """Of two in each shared cell; none are left after the test."""
    runtime = estate.runtime
    await withdraw(runtime, COLUMN)
    stock = runtime.provisioning.stock
    yield Stock(runtime.catalog_engine, runtime.catalog_url, runtime.registry, stock._home, wanted=2)
    async with runtime.catalog_engine.begin() as connection:
        await connection.execute(update(SpareRow).values(ready=False))
    await Stock(runtime.catalog_engine, runtime.catalog_url, runtime.registry, stock._home, wanted=0).refill()


async def spares(estate: Estate) -> set[UUID]:
    async with estate.runtime.catalog_engine.connect() as connection:
        return set(await connection.scalars(select(SpareRow.tenant_id)))


async def create(estate: Estate, slug: str, cell: str = FIRST_CELL) -> UUID:
    new = NewTenant(slug=slug, name=slug, tier=Tier.SCHEMA, cell=cell)
    return (await estate.runtime.provisioning.create(new, ACTOR)).id


async def test_a_tenant_gets_one_that_stands_ready(estate: Estate, stock: Stock) -> None:
    assert await stock.refill() == 4  # two in each shared cell
    assert await stock.refill() == 0
    ready = await spares(estate)
    async with admin_of(estate.runtime, FIRST_CELL) as admin:
        assert await table_weaknesses(admin) == []
    slug = f"s{secrets.token_hex(4)}"
    tenant_id = await create(estate, slug)
    assert tenant_id in ready
    assert await spares(estate) == ready - {tenant_id}
    context = await estate.runtime.contexts.get_by_slug(slug)
    async with estate.runtime.tenants.transaction(context) as session:
        await session.execute(text("INSERT INTO product (sku, name) VALUES ('a', 'A')"))
    removal = await estate.runtime.provisioning.delete(slug, ACTOR)
    assert not any(removal.remains.values())
    assert await stock.refill() == 1


async def test_of_many_each_gets_one_of_their_own(estate: Estate, stock: Stock) -> None:
    """More than there are: the others' are made while they wait."""
    await stock.refill()
    slugs = [f"s{secrets.token_hex(4)}" for _ in range(4)]
    ids = await asyncio.gather(*(create(estate, slug, SECOND_CELL) for slug in slugs))
    assert len(set(ids)) == 4
    for slug in slugs:
        context = await estate.runtime.contexts.get_by_slug(slug)
        async with estate.runtime.tenants.reading(context) as session:
            assert await session.scalar(text("SELECT count(*) FROM product")) == 0
        await estate.runtime.provisioning.delete(slug, ACTOR)


async def test_half_made_ones_are_cleared(estate: Estate, stock: Stock) -> None:
    died = new_id()
    async with estate.runtime.catalog_engine.connect() as connection:
        session_cell = (
            await connection.execute(text("SELECT id FROM cell WHERE name = :n"), {"n": FIRST_CELL})
        ).scalar_one()
        await connection.execute(SpareRow.__table__.insert().values(tenant_id=died, cell_id=session_cell))  # type: ignore[attr-defined]
        await connection.commit()
    schema = schema_for(Tier.SCHEMA, died)
    async with admin_of(estate.runtime, FIRST_CELL) as admin:
        await admin.execute(f'CREATE ROLE "{schema}" NOLOGIN; CREATE SCHEMA "{schema}"')
        await stock.refill()
        assert died not in await spares(estate)
        left = await admin.fetchval(
            "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = $1) + (SELECT count(*) FROM pg_roles WHERE rolname = $1)",
            schema,
        )
    assert left == 0
