"""The models and the tables that the revisions make are the same, column by column, on every tier.

Constraints and indexes live in the revisions' SQL alone: the ORM has no use for them.
"""

from __future__ import annotations

import pytest
from sqlalchemy.dialects import postgresql

from strata.inventory.aggregates.models import WarehouseStock, WarehouseStockBasis
from strata.inventory.alerts.models import StockAlert, StockThreshold
from strata.inventory.approvals.models import MovementRequest
from strata.inventory.custom.models import CustomValue
from strata.inventory.idempotency import IdempotencyRow
from strata.inventory.imports.models import ImportBatch, ImportChunk, ImportRefusal, ImportRun
from strata.inventory.locations.models import Bin, Warehouse, Zone
from strata.inventory.movements.models import Movement
from strata.inventory.products.models import Product
from strata.inventory.quotas import QuotaCounter
from strata.inventory.stock.models import StockBalance, StockLedgerLine
from strata.runtime import Runtime
from strata.tenancy.audit.models import AuditEntryRow
from strata.tenancy.events.models import DeadLetter, EventMark
from strata.tenancy.jobs.models import JobRun
from strata.tenancy.model import Tier
from strata.tenancy.scoping import TenantModel
from tests.builders.platform import Tenantry, admin_of

MODELS: tuple[type[TenantModel], ...] = (
    Product,
    Warehouse,
    Zone,
    Bin,
    StockBalance,
    StockLedgerLine,
    Movement,
    IdempotencyRow,
    QuotaCounter,
    ImportRun,
    ImportRefusal,
    ImportChunk,
    ImportBatch,
    JobRun,
    EventMark,
    DeadLetter,
    WarehouseStock,
    WarehouseStockBasis,
    StockThreshold,
    StockAlert,
    CustomValue,
    MovementRequest,
    AuditEntryRow,
)

_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type, NOT a.attnotnull AS nullable
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
"""


@pytest.mark.parametrize("tier", Tier)
async def test_columns_are_the_same(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    placement = (await tenant_on(tier)).placement
    async with admin_of(runtime, placement.cell) as admin:
        rows = await admin.fetch(_COLUMNS, placement.schema_name)
    tables = {(row["relname"], row["attname"], row["type"], row["nullable"]) for row in rows}
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    models = {
        (model.__tablename__, column.name, column.type.compile(dialect=dialect).lower(), column.nullable)
        for model in MODELS
        for column in model.__table__.columns
    }
    assert models == tables
