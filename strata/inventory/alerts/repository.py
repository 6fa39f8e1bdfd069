"""Thresholds and alerts. What decides is the stock of the moment, never an event's: however often and late one looks,
the outcome is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy import and_, delete, select, text

from strata.inventory.alerts.models import StockAlert, StockThreshold
from strata.inventory.events import StockLow, StockRecovered
from strata.inventory.products.models import Product
from strata.inventory.products.repository import product_by_id
from strata.inventory.settings import rules_of
from strata.platform.errors import NotFoundError
from strata.platform.paging import AnySelect, Keyset, Page, Paging
from strata.tenancy.audit import record
from strata.tenancy.events.emitting import emit
from strata.tenancy.session import TenantReadSession, TenantSession

_LEVELS = text(
    """
    SELECT p.id AS product_id, p.sku, coalesce(t.minimum, CAST(:default AS bigint)) AS minimum, a.id AS alert_id,
           (SELECT coalesce(sum(b.on_hand), 0)::bigint FROM stock_balance AS b
             WHERE b.tenant_id = :tenant AND b.product_id = p.id) AS on_hand
      FROM product AS p
      LEFT JOIN stock_threshold AS t ON t.tenant_id = :tenant AND t.product_id = p.id
      LEFT JOIN stock_alert AS a ON a.tenant_id = :tenant AND a.product_id = p.id AND a.closed_at IS NULL
     WHERE p.tenant_id = :tenant AND p.id = ANY(CAST(:products AS uuid[]))
       AND (coalesce(t.minimum, CAST(:default AS bigint)) IS NOT NULL OR a.id IS NOT NULL)
     ORDER BY p.id
    """
)
# Nobody else opens or closes an alert of these products meanwhile: an alert opens once.
_TAKE_TURNS = text(
    """
    SELECT t.id FROM stock_threshold AS t
     WHERE t.tenant_id = :tenant AND t.product_id = ANY(CAST(:products AS uuid[])) ORDER BY t.product_id FOR UPDATE
    """
)
_OPEN = text(
    """
    INSERT INTO stock_alert (tenant_id, product_id, minimum, on_hand) VALUES (:tenant, :product, :minimum, :on_hand)
    ON CONFLICT (tenant_id, product_id) WHERE closed_at IS NULL DO NOTHING RETURNING id
    """
)
_CLOSE = text(
    "UPDATE stock_alert SET closed_at = now() WHERE tenant_id = :tenant AND id = :alert AND closed_at IS NULL RETURNING id"
)
_SET = text(
    """
    INSERT INTO stock_threshold (tenant_id, product_id, minimum) VALUES (:tenant, :product, :minimum)
    ON CONFLICT (tenant_id, product_id) DO UPDATE SET minimum = excluded.minimum, updated_at = now()
    """
)

_ALERTS: AnySelect = (
    select(
        StockAlert.id,
        StockAlert.product_id,
        Product.sku,
        Product.name,
        StockAlert.minimum,
        StockAlert.on_hand,
        StockAlert.opened_at,
        StockAlert.closed_at,
    )
    .select_from(StockAlert)
    .join(Product, and_(Product.tenant_id == StockAlert.tenant_id, Product.id == StockAlert.product_id))
)
_ORDER = Keyset(StockAlert.id, descending=True)


class StockAlertOut(msgspec.Struct, frozen=True):
    id: UUID
    product_id: UUID
    sku: str
    name: str
    minimum: int
    on_hand: int
    opened_at: datetime
    closed_at: datetime | None


class ThresholdOut(msgspec.Struct, frozen=True):
    product_id: UUID
    minimum: int


class NoThresholdError(NotFoundError):
    code = "no-threshold"
    title = "No threshold"

    def __init__(self, product_id: UUID) -> None:
        super().__init__(f"Product {product_id} has no threshold; PUT one with the minimum that should be there.")


class _Level(msgspec.Struct, frozen=True):
    product_id: UUID
    sku: str
    minimum: int | None
    alert_id: UUID | None
    on_hand: int

    @property
    def low(self) -> bool:
        return self.minimum is not None and self.on_hand < self.minimum


async def judge(session: TenantSession, product_ids: Sequence[UUID]) -> None:
    """Open and close the products' alerts by what lies there now, and tell of it."""
    of = {"tenant": session.info["tenant_id"], "products": sorted(product_ids)}
    await session.execute(_TAKE_TURNS, of)
    default = rules_of(session).low_stock_minimum
    for row in (await session.execute(_LEVELS, {**of, "default": default})).all():
        level = _Level(*row)
        if level.low and level.alert_id is None:
            await _open(session, level)
        elif not level.low and level.alert_id is not None:
            await _close(session, level, level.alert_id)


async def _open(session: TenantSession, level: _Level) -> None:
    minimum = level.minimum or 0
    alert_id = await session.scalar(
        _OPEN,
        {
            "tenant": session.info["tenant_id"],
            "product": level.product_id,
            "minimum": minimum,
            "on_hand": level.on_hand,
        },
    )
    if alert_id is not None:
        await emit(session, StockLow(alert_id, level.product_id, level.sku, minimum, level.on_hand))


async def _close(session: TenantSession, level: _Level, alert_id: UUID) -> None:
    if await session.scalar(_CLOSE, {"tenant": session.info["tenant_id"], "alert": alert_id}):
        await emit(session, StockRecovered(alert_id, level.product_id, level.sku, level.on_hand))


async def threshold_of(session: TenantReadSession, product_id: UUID) -> ThresholdOut:
    minimum = await session.scalar(select(StockThreshold.minimum).where(StockThreshold.product_id == product_id))
    if minimum is None:
        raise NoThresholdError(product_id)
    return ThresholdOut(product_id, minimum)


async def set_threshold(session: TenantSession, product_id: UUID, minimum: int) -> ThresholdOut:
    """And open or close the alert that this makes due."""
    product = await product_by_id(session, product_id)
    record(session, "threshold.set", product.sku, minimum=minimum)
    await session.execute(_SET, {"tenant": session.info["tenant_id"], "product": product_id, "minimum": minimum})
    await judge(session, [product_id])
    return ThresholdOut(product_id, minimum)


async def remove_threshold(session: TenantSession, product_id: UUID) -> None:
    threshold = await threshold_of(session, product_id)
    record(session, "threshold.remove", str(product_id), minimum=threshold.minimum)
    await session.execute(delete(StockThreshold).where(StockThreshold.product_id == product_id))
    await judge(session, [product_id])


async def list_alerts(
    session: TenantReadSession, paging: Paging, *, open_only: bool | None = None
) -> Page[StockAlertOut]:
    """The newest first."""
    statement = _ALERTS.where(StockAlert.closed_at.is_(None)) if open_only else _ALERTS
    rows = (await session.execute(_ORDER.select_page(statement, paging))).all()
    return _ORDER.page(rows, paging, item=lambda row: StockAlertOut(*row), position=lambda row: (row.id,))
