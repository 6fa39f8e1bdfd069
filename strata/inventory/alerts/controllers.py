from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, delete, get, put
from litestar.openapi.spec import Example
from litestar.params import Body

from strata.identity.permissions import Permission, requires
from strata.inventory.alerts import repository
from strata.inventory.alerts.repository import StockAlertOut, ThresholdOut
from strata.inventory.request_parameters import CursorParameter, LimitParameter
from strata.platform.paging import DEFAULT_LIMIT, Page, Paging
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

_MAX_SAFE_INTEGER = 2**53 - 1


class ThresholdIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    minimum: Annotated[int, msgspec.Meta(ge=1, le=_MAX_SAFE_INTEGER)]


class StockAlertController(Controller):
    path = "/stock/alerts"
    tags = ("Stock",)

    @get("/", summary="Products that are or were below their threshold", opt=requires(Permission.STOCK_READ))
    async def list_alerts(
        self,
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        open: bool | None = None,  # noqa: A002 - the parameter's name in the API
    ) -> Page[StockAlertOut]:
        """The newest first; with open=true those that are open alone."""
        async with tenants.reading(context) as session:
            return await repository.list_alerts(session, Paging(limit, cursor), open_only=open)


class ThresholdController(Controller):
    path = "/products/{product_id:uuid}/threshold"
    tags = ("Products",)

    @get("/", summary="Below how much an alert opens", opt=requires(Permission.PRODUCTS_READ))
    async def get_threshold(self, context: TenantContext, tenants: Tenants, product_id: UUID) -> ThresholdOut:
        async with tenants.reading(context) as session:
            return await repository.threshold_of(session, product_id)

    @put("/", summary="Open an alert below this much", opt=requires(Permission.PRODUCTS_WRITE))
    async def set_threshold(
        self,
        context: TenantContext,
        tenants: Tenants,
        product_id: UUID,
        data: Annotated[ThresholdIn, Body(examples=[Example(summary="A dozen", value={"minimum": 12})])],
    ) -> ThresholdOut:
        async with tenants.transaction(context) as session:
            return await repository.set_threshold(session, product_id, data.minimum)

    @delete("/", summary="Open no alerts any more", opt=requires(Permission.PRODUCTS_WRITE))
    async def remove_threshold(self, context: TenantContext, tenants: Tenants, product_id: UUID) -> None:
        async with tenants.transaction(context) as session:
            await repository.remove_threshold(session, product_id)
