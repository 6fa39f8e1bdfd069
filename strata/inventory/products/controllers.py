from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, delete, get, patch, post
from litestar.openapi.spec import Example
from litestar.params import Body, PathParameter

from strata.identity.permissions import Permission, requires
from strata.inventory.custom.values import PREFIX, wanted_values
from strata.inventory.idempotency import IdempotencyKeyHeader
from strata.inventory.products import repository
from strata.inventory.products.repository import product_out
from strata.inventory.products.schemas import ProductFilter, ProductIn, ProductOut, ProductPatch
from strata.inventory.request_parameters import (
    CursorParameter,
    FieldsParameter,
    IfMatchHeader,
    IfNoneMatchHeader,
    LimitParameter,
    SearchParameter,
    TextParameter,
)
from strata.inventory.resources import Resource
from strata.platform.http.query import open_parameters
from strata.platform.paging import DEFAULT_LIMIT, Page, Paging
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants, TenantSession

_NEW = Example(
    summary="A product",
    value={"sku": "MUG-RED-350", "name": "Red mug, 350 ml", "barcode": "4006381333931", "weight_grams": 410},
)
_CHANGE = Example(summary="A new name", value={"name": "Red mug, 0.35 l"})


PRODUCTS = Resource("products", ProductOut)


class ProductController(Controller):
    path = "/products"
    tags = ("Products",)

    @get("/", summary="List products by SKU", opt=requires(Permission.PRODUCTS_READ) | open_parameters(PREFIX))
    async def list_products(
        self,
        request: Request[Any, Any, Any],
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        q: SearchParameter = None,
        active: bool | None = None,
        barcode: TextParameter = None,
        sku: TextParameter = None,
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[Page[ProductOut]]:
        """Also by values of custom fields: `custom.colour=red`."""
        wanted = ProductFilter(q=q, active=active, barcode=barcode, sku=sku, custom=wanted_values(request))
        async with tenants.reading(context) as session:
            page = await repository.list_products(session, Paging(limit, cursor, fields), wanted)
        return PRODUCTS.page(page, if_none_match)

    @get("/by-sku/{sku:str}", summary="One product by its SKU", opt=requires(Permission.PRODUCTS_READ))
    async def get_by_sku(
        self,
        context: TenantContext,
        tenants: Tenants,
        sku: Annotated[str, PathParameter(max_length=64, pattern=r"^[^\x00]*$")],
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[ProductOut]:
        async with tenants.reading(context) as session:
            product = product_out(await repository.product_by_sku(session, sku))
        return PRODUCTS.read(product, fields, if_none_match)

    @get("/{product_id:uuid}", summary="One product", opt=requires(Permission.PRODUCTS_READ))
    async def get_by_id(
        self,
        context: TenantContext,
        tenants: Tenants,
        product_id: UUID,
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[ProductOut]:
        async with tenants.reading(context) as session:
            product = product_out(await repository.product_by_id(session, product_id))
        return PRODUCTS.read(product, fields, if_none_match)

    @post("/", summary="Create a product", opt=requires(Permission.PRODUCTS_WRITE))
    async def create(
        self,
        context: TenantContext,
        tenants: Tenants,
        data: Annotated[ProductIn, Body(examples=[_NEW])],
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> Response[ProductOut]:
        async def create(session: TenantSession) -> ProductOut:
            return product_out(await repository.create_product(session, data, sku_limit=context.limits.skus))

        return await PRODUCTS.create(context, tenants, data, idempotency_key, create)

    @patch("/{product_id:uuid}", summary="Change a product", opt=requires(Permission.PRODUCTS_WRITE))
    async def change(
        self,
        context: TenantContext,
        tenants: Tenants,
        product_id: UUID,
        data: Annotated[ProductPatch, Body(examples=[_CHANGE])],
        if_match: IfMatchHeader = None,
    ) -> Response[ProductOut]:
        async with tenants.transaction(context) as session:
            product = await repository.change_product(
                session, product_id, data, if_match=if_match, sku_limit=context.limits.skus
            )
        return PRODUCTS.written(product_out(product))

    @delete("/{product_id:uuid}", summary="Delete a product that never moved", opt=requires(Permission.PRODUCTS_WRITE))
    async def delete(
        self, context: TenantContext, tenants: Tenants, product_id: UUID, if_match: IfMatchHeader = None
    ) -> None:
        async with tenants.transaction(context) as session:
            await repository.delete_product(session, product_id, if_match=if_match)
