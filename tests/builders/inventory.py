"""A tenant with goods and bins, and a client that speaks to its API."""

from __future__ import annotations

import httpx
import msgspec

from strata.app import StrataApp
from strata.identity.roles import Role
from strata.inventory.locations.schemas import BinIn, WarehouseIn, ZoneIn
from strata.inventory.locations.service import create_bin, create_warehouse, create_zone
from strata.inventory.movements.models import MovementKind
from strata.inventory.movements.outcomes import PostedMovement
from strata.inventory.movements.posting import post_movement
from strata.inventory.movements.schemas import LineIn, MovementIn
from strata.inventory.products.repository import ensure_products
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.session import TenantSession
from tests.builders.http import client_of, token_for


class Goods(msgspec.Struct, frozen=True):
    skus: list[str]
    bins: list[str]


async def stocked(
    runtime: Runtime, context: TenantContext, *, skus: int = 2, bins: int = 2, on_hand: int = 0, prefix: str = ""
) -> Goods:
    """Products `<prefix>S-0`, … and bins `<prefix>B-0`, …; `on_hand` of every product in every bin."""
    goods = Goods([f"{prefix}S-{n}" for n in range(skus)], [f"{prefix}B-{n}" for n in range(bins)])
    async with runtime.tenants.transaction(context) as session:
        await ensure_products(session, [(sku, f"Product {sku}") for sku in goods.skus], sku_limit=None)
        warehouse = await create_warehouse(session, WarehouseIn(f"{prefix}W", "Warehouse"))
        zone = await create_zone(session, ZoneIn(warehouse.id, "Z", "Zone"))
        for code in goods.bins:
            await create_bin(session, BinIn(zone.id, code), location_limit=None)
    if on_hand:
        async with runtime.tenants.transaction(context) as session:
            await move(session, "receive", *((sku, code, on_hand) for sku in goods.skus for code in goods.bins))
    return goods


async def move(
    session: TenantSession, kind: str, *lines: tuple[str, str, int] | tuple[str, str, int, str]
) -> PostedMovement:
    """Lines are (SKU, bin, quantity) or, for a transfer, (SKU, bin, quantity, other bin)."""
    movement = MovementIn(MovementKind(kind), [LineIn(*line) for line in lines])
    posted, _ = await post_movement(session, movement, actor="tests")
    return posted


def api_client(
    app: StrataApp, runtime: Runtime, context: TenantContext, role: Role = Role.ADMINISTRATOR
) -> httpx.AsyncClient:
    return client_of(app, f"{context.slug}.localhost", token=token_for(runtime.tokens, context, role))
