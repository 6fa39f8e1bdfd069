"""Puts an assortment into a tenant, through the services that its own requests go through.

All of it is one transaction under one idempotency key: killed half way it leaves nothing, run again it does nothing, and
of two that run at once one waits and then finds it done.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import exists, select

from strata.inventory.idempotency import once, request_key
from strata.inventory.locations.schemas import BinIn, WarehouseIn, ZoneIn
from strata.inventory.locations.service import create_bin, create_warehouse, create_zone
from strata.inventory.movements.models import Movement, MovementKind
from strata.inventory.movements.outcomes import Accepted
from strata.inventory.movements.posting import post_movements
from strata.inventory.movements.schemas import LineIn, MovementDocument
from strata.inventory.products.models import ExpiryPolicy
from strata.inventory.products.repository import create_product
from strata.inventory.products.schemas import ProductIn
from strata.inventory.seeding.assortments import AssortedProduct, AssortedWarehouse, Assortment
from strata.platform.errors import ConflictError
from strata.platform.ids import new_id
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants, TenantSession

ACTOR = "demo"
_KEY = "strata-demo-stock"
_DAYS = 30
_AISLES = 2
_BINS_PER_AISLE = 4
_DAYS_OF_STOCK = 45
_SHELF_LIFE_DAYS = 90
_ORDERS_PER_DAY = 3
_OPENING_HOUR = 8


class Seeded(msgspec.Struct, frozen=True):
    """What was made: nothing of it a second time."""

    products: int = 0
    bins: int = 0
    movements: int = 0


class SeedRefusedError(ConflictError):
    code = "seed-refused"
    title = "Demo stock does not fit"

    def __init__(self, slug: str) -> None:
        super().__init__(f"The demo stock does not fit what «{slug}» has already: seed a new tenant instead.")


async def seed_stock(tenants: Tenants, context: TenantContext, goods: Assortment, now: datetime) -> tuple[Seeded, bool]:
    """Make products, bins and a month of movements that ends at `now`; the second value: it had been done before."""
    key = request_key(_KEY, "seed", None)
    async with tenants.transaction(context) as session:

        async def make() -> Seeded:
            if await _done_before(session):
                return Seeded()
            return await _make(session, context, goods, now)

        made, replayed = await once(session, key, Seeded, make)
    return made, replayed or not made.movements


async def _done_before(session: TenantSession) -> bool:
    """Idempotency keys are not kept for ever; the ledger is."""
    return bool(await session.scalar(select(exists().where(Movement.created_by == ACTOR))))


async def _make(session: TenantSession, context: TenantContext, goods: Assortment, now: datetime) -> Seeded:
    for product in goods.products:
        await create_product(session, _described(product), sku_limit=context.limits.skus)
    storage, outlet = [
        await _make_bins(session, warehouse, context.limits.locations) for warehouse in goods.warehouses[:2]
    ]
    movements = _month(goods, storage, outlet, now)
    outcomes = await post_movements(session, movements, actor=ACTOR)
    if not all(isinstance(outcome, Accepted) for outcome in outcomes):
        raise SeedRefusedError(context.slug)
    return Seeded(len(goods.products), len(storage) + len(outlet), len(movements))


def _described(product: AssortedProduct) -> ProductIn:
    return ProductIn(
        sku=product.sku,
        name=product.name,
        barcode=product.barcode,
        unit=product.unit,
        weight_grams=product.weight_grams,
        expiry_policy=ExpiryPolicy.REQUIRED if product.perishable else ExpiryPolicy.NONE,
    )


async def _make_bins(session: TenantSession, place: AssortedWarehouse, limit: int | None) -> list[str]:
    warehouse = await create_warehouse(session, WarehouseIn(code=place.code, name=place.name))
    codes = []
    for aisle in "ABCDEFGH"[:_AISLES]:
        zone = await create_zone(session, ZoneIn(warehouse_id=warehouse.id, code=aisle, name=f"Aisle {aisle}"))
        for number in range(1, _BINS_PER_AISLE + 1):
            code = f"{place.code}-{aisle}-{number:02d}"
            await create_bin(session, BinIn(zone_id=zone.id, code=code), location_limit=limit)
            codes.append(code)
    return codes


class _Shelf(msgspec.Struct):
    """Where a product lies, and how much of it by this story."""

    product: AssortedProduct
    storage: str
    outlet: str
    batch: str
    in_storage: int = 0
    in_outlet: int = 0


def _month(goods: Assortment, storage: list[str], outlet: list[str], now: datetime) -> list[MovementDocument]:
    """The same month every time, in order: opening receipts, then for each day supplies to the outlet and orders."""
    chance = random.Random(goods.products[0].sku)  # noqa: S311 - a story to tell, no secret
    first_day = now.astimezone(UTC).replace(hour=_OPENING_HOUR, minute=0, second=0, microsecond=0) - timedelta(
        days=_DAYS
    )
    shelves = [
        _Shelf(
            product,
            storage[index % len(storage)],
            outlet[index % len(outlet)],
            f"{product.sku[:3]}{first_day:%y%m}" if product.perishable else "",
        )
        for index, product in enumerate(goods.products)
    ]
    movements = [_opening(shelf, number, first_day) for number, shelf in enumerate(shelves, start=1)]
    for day in range(1, _DAYS):
        movements += _day(shelves, chance, first_day + timedelta(days=day), day)
    movements.append(_damage(shelves[0], first_day + timedelta(days=_DAYS - 1, hours=9)))
    return movements


def _opening(shelf: _Shelf, number: int, at: datetime) -> MovementDocument:
    shelf.in_storage = max(shelf.product.daily * _DAYS_OF_STOCK, 10)
    expires = (at + timedelta(days=_SHELF_LIFE_DAYS)).date() if shelf.product.perishable else None
    line = LineIn(shelf.product.sku, shelf.storage, shelf.in_storage, batch=shelf.batch, expires_on=expires)
    return MovementDocument(
        new_id(),
        MovementKind.RECEIVE,
        [line],
        reference=f"PO-{1000 + number}",
        occurred_at=at + timedelta(minutes=number),
    )


def _day(shelves: list[_Shelf], chance: random.Random, morning: datetime, day: int) -> list[MovementDocument]:
    movements = []
    supplies = [line for shelf in shelves if (line := _supply(shelf)) is not None]
    if supplies:
        movements.append(
            MovementDocument(
                new_id(), MovementKind.TRANSFER, supplies, reference=f"TR-{2000 + day}", occurred_at=morning
            )
        )
    for order in range(1, _ORDERS_PER_DAY + 1):
        wanted = chance.sample(shelves, k=max(3, len(shelves) // 3))
        lines = [line for shelf in wanted if (line := _sale(shelf, chance)) is not None]
        if lines:
            at = morning + timedelta(hours=2 * order, minutes=chance.randrange(60))
            reference = f"SO-{3000 + day * _ORDERS_PER_DAY + order}"
            movements.append(MovementDocument(new_id(), MovementKind.PICK, lines, reference=reference, occurred_at=at))
    return movements


def _supply(shelf: _Shelf) -> LineIn | None:
    """The outlet is filled to three days' worth when less than one is left."""
    daily = shelf.product.daily
    quantity = min(3 * daily - shelf.in_outlet, shelf.in_storage)
    if shelf.in_outlet >= daily or quantity < 1:
        return None
    shelf.in_storage -= quantity
    shelf.in_outlet += quantity
    return LineIn(shelf.product.sku, shelf.storage, quantity, to_bin=shelf.outlet, batch=shelf.batch)


def _sale(shelf: _Shelf, chance: random.Random) -> LineIn | None:
    quantity = min(chance.randint(1, max(1, 2 * shelf.product.daily)), shelf.in_outlet)
    if quantity < 1:
        return None
    shelf.in_outlet -= quantity
    return LineIn(shelf.product.sku, shelf.outlet, quantity, batch=shelf.batch)


def _damage(shelf: _Shelf, at: datetime) -> MovementDocument:
    line = LineIn(shelf.product.sku, shelf.storage, -1, batch=shelf.batch)
    return MovementDocument(
        new_id(), MovementKind.ADJUST, [line], reason="damaged", note="Fell from the shelf.", occurred_at=at
    )
