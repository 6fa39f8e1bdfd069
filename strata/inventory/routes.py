"""Everything of the product's core under /api/v1. Handlers ask for `context`, `tenants` and `claims` by name."""

from __future__ import annotations

from litestar import Router
from litestar.types import ControllerRouterHandler

from strata.inventory.aggregates.controllers import WarehouseStockController
from strata.inventory.alerts.controllers import StockAlertController, ThresholdController
from strata.inventory.approvals.controllers import MovementRequestController
from strata.inventory.imports.controllers import ImportController
from strata.inventory.locations.controllers import BinController, WarehouseController, ZoneController
from strata.inventory.movements.controllers import MovementController
from strata.inventory.products.controllers import ProductController
from strata.inventory.request_parameters import API_PREFIX
from strata.inventory.stock.controllers import LedgerController, StockController
from strata.platform.http.query import refuse_unknown_parameters

ROUTES: list[ControllerRouterHandler] = [
    Router(
        API_PREFIX,
        route_handlers=[
            ProductController,
            WarehouseController,
            ZoneController,
            BinController,
            StockController,
            WarehouseStockController,
            StockAlertController,
            ThresholdController,
            MovementController,
            MovementRequestController,
            LedgerController,
            ImportController,
        ],
        before_request=refuse_unknown_parameters,
    )
]
