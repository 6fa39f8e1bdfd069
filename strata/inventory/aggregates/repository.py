"""Stock by product and warehouse: kept by deltas, made anew from the ledger, compared with it, read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import and_, select, text

from strata.inventory.aggregates.basis import Basis
from strata.inventory.aggregates.models import WarehouseStock, WarehouseStockBasis
from strata.inventory.locations.models import Warehouse
from strata.inventory.products.models import Product
from strata.platform.paging import AnySelect, Keyset, Page, Paging
from strata.tenancy.session import TenantReadSession, TenantSession

_NAME = "stock-by-warehouse"

_ADD = text(
    """
    INSERT INTO stock_by_warehouse AS s (tenant_id, product_id, warehouse_id, on_hand)
    SELECT :tenant, d.product_id, z.warehouse_id, sum(d.quantity)
      FROM unnest(CAST(:products AS uuid[]), CAST(:bins AS uuid[]), CAST(:quantities AS bigint[]))
           AS d (product_id, bin_id, quantity)
      JOIN bin AS b ON b.tenant_id = :tenant AND b.id = d.bin_id
      JOIN zone AS z ON z.tenant_id = :tenant AND z.id = b.zone_id
     GROUP BY d.product_id, z.warehouse_id
    ON CONFLICT (tenant_id, product_id, warehouse_id) DO UPDATE
       SET on_hand = s.on_hand + excluded.on_hand, updated_at = now()
    """
)

# One statement, so one snapshot: the one that it writes down is the one that it read the ledger in.
_LEDGER_SUMS = """
    SELECT l.product_id, z.warehouse_id, sum(l.quantity)::bigint AS on_hand
      FROM stock_ledger AS l
      JOIN bin AS b ON b.tenant_id = l.tenant_id AND b.id = l.bin_id
      JOIN zone AS z ON z.tenant_id = b.tenant_id AND z.id = b.zone_id
     WHERE l.tenant_id = :tenant
     GROUP BY l.product_id, z.warehouse_id
"""
_REBUILD = text(
    f"""
    WITH made AS MATERIALIZED ({_LEDGER_SUMS}), gone AS (
        DELETE FROM stock_by_warehouse AS s
         WHERE s.tenant_id = :tenant
           AND NOT EXISTS (SELECT FROM made AS m
                            WHERE m.product_id = s.product_id AND m.warehouse_id = s.warehouse_id)
    ), kept AS (
        INSERT INTO stock_by_warehouse AS s (tenant_id, product_id, warehouse_id, on_hand)
        SELECT :tenant, m.product_id, m.warehouse_id, m.on_hand FROM made AS m
        ON CONFLICT (tenant_id, product_id, warehouse_id) DO UPDATE SET on_hand = excluded.on_hand, updated_at = now()
         WHERE s.on_hand <> excluded.on_hand
        RETURNING 1
    ), basis AS (
        INSERT INTO stock_by_warehouse_basis (tenant_id, name, epoch, snapshot)
        VALUES (:tenant, :name, strata.epoch(), CAST(pg_current_snapshot() AS text))
        ON CONFLICT (tenant_id, name) DO UPDATE
           SET epoch = excluded.epoch, snapshot = excluded.snapshot, made_at = now()
    )
    SELECT count(*) FROM kept
    """  # noqa: S608 - a constant of this module
)
_COMPARE = text(
    f"""
    SELECT product_id, warehouse_id, coalesce(m.on_hand, 0) AS expected, coalesce(s.on_hand, 0) AS found
      FROM ({_LEDGER_SUMS}) AS m
      FULL JOIN (SELECT * FROM stock_by_warehouse WHERE tenant_id = :tenant) AS s USING (product_id, warehouse_id)
     WHERE coalesce(m.on_hand, 0) <> coalesce(s.on_hand, 0)
     ORDER BY product_id, warehouse_id
    """  # noqa: S608 - as above
)

_STOCK: AnySelect = (
    select(
        Product.sku,
        Product.name,
        Warehouse.code.label("warehouse"),
        WarehouseStock.on_hand,
        Product.unit,
        WarehouseStock.product_id,
        WarehouseStock.warehouse_id,
        WarehouseStock.updated_at,
    )
    .select_from(WarehouseStock)
    .join(Product, and_(Product.tenant_id == WarehouseStock.tenant_id, Product.id == WarehouseStock.product_id))
    .join(Warehouse, and_(Warehouse.tenant_id == WarehouseStock.tenant_id, Warehouse.id == WarehouseStock.warehouse_id))
)
_ORDER = Keyset(Product.sku, Warehouse.code)


class WarehouseStockOut(msgspec.Struct, frozen=True):
    sku: str
    name: str
    warehouse: str
    on_hand: int
    unit: str
    product_id: UUID
    warehouse_id: UUID
    updated_at: datetime


class WarehouseStockFilter(msgspec.Struct, frozen=True):
    sku: str | None = None
    warehouse: str | None = None


class Difference(msgspec.Struct, frozen=True):
    product_id: UUID
    warehouse_id: UUID
    expected: int
    """What the ledger says."""
    found: int


async def list_by_warehouse(
    session: TenantReadSession,
    paging: Paging,
    wanted: WarehouseStockFilter = WarehouseStockFilter(),  # noqa: B008 - frozen
) -> Page[WarehouseStockOut]:
    statement = _STOCK
    if wanted.sku is not None:
        statement = statement.where(Product.sku == wanted.sku)
    if wanted.warehouse is not None:
        statement = statement.where(Warehouse.code == wanted.warehouse)
    rows = (await session.execute(_ORDER.select_page(statement, paging))).all()
    return _ORDER.page(
        rows, paging, item=lambda row: WarehouseStockOut(*row), position=lambda row: (row.sku, row.warehouse)
    )


async def basis(session: TenantReadSession) -> Basis | None:
    query = select(WarehouseStockBasis.epoch, WarehouseStockBasis.snapshot).where(WarehouseStockBasis.name == _NAME)
    row = (await session.execute(query)).one_or_none()
    return Basis.parse(row.epoch, row.snapshot) if row is not None else None


async def add(session: TenantSession, quantities: Mapping[tuple[UUID, UUID], int]) -> None:
    """Quantities by product and bin, put where the bins belong now."""
    keys = sorted(quantities)
    await session.execute(
        _ADD,
        {
            "tenant": session.info["tenant_id"],
            "products": [product for product, _ in keys],
            "bins": [bin_ for _, bin_ in keys],
            "quantities": [quantities[key] for key in keys],
        },
    )


async def make_from_ledger(session: TenantSession) -> int:
    """Returns how many rows were not as the ledger says. The caller holds the consumer's mark."""
    of = {"tenant": session.info["tenant_id"], "name": _NAME}
    changed: int = await session.scalar(_REBUILD, of)
    return changed


async def differences(session: TenantReadSession) -> list[Difference]:
    """Where the rows are not what the ledger says now. Events still on their way show here too."""
    rows = await session.execute(_COMPARE, {"tenant": session.info["tenant_id"]})
    return [Difference(*row) for row in rows]
