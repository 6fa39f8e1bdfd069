from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Text, bindparam, delete, or_, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError

from strata.inventory import quotas
from strata.inventory.changes import apply_patch
from strata.inventory.custom.values import Entity, Fields, Values, check, defined, having, problems
from strata.inventory.events import ProductChanged, ProductCreated, ProductDeleted, ProductFacts
from strata.inventory.products.errors import ProductHasHistoryError, ProductNotFoundError, SkuTakenError
from strata.inventory.products.models import Product
from strata.inventory.products.schemas import ProductFilter, ProductIn, ProductOut, ProductPatch
from strata.inventory.quotas import Quota
from strata.inventory.violations import violated_constraint
from strata.platform.etags import check_if_match
from strata.platform.ids import new_id
from strata.platform.listing import Listing
from strata.platform.paging import Keyset, Page, Paging
from strata.tenancy.audit import record
from strata.tenancy.events.emitting import emit
from strata.tenancy.session import TenantReadSession, TenantSession

_BY_SKU = select(Product).where(Product.sku == bindparam("sku"))
_BY_ID = select(Product).where(Product.id == bindparam("product_id"))
_LIST = Listing(
    ProductOut, select(*(getattr(Product, name) for name in ProductOut.__struct_fields__)), Keyset(Product.sku)
)
_encode = msgspec.json.Encoder().encode
_SKU_CONSTRAINT = "uq_product_tenant_id_sku"


def product_out(product: Product) -> ProductOut:
    return ProductOut(
        product.id,
        product.sku,
        product.name,
        product.barcode,
        product.unit,
        product.weight_grams,
        product.attributes,
        product.custom,
        product.expiry_policy,
        product.active,
        product.version,
        product.created_at,
        product.updated_at,
    )


async def product_by_sku(session: TenantReadSession, sku: str) -> Product:
    product = await session.scalar(_BY_SKU, {"sku": sku})
    if product is None:
        raise ProductNotFoundError(sku)
    return product


async def product_by_id(session: TenantReadSession, product_id: UUID) -> Product:
    product = await session.scalar(_BY_ID, {"product_id": product_id})
    if product is None:
        raise ProductNotFoundError(product_id)
    return product


async def list_products(
    session: TenantReadSession,
    paging: Paging,
    wanted: ProductFilter = ProductFilter(),  # noqa: B008 - frozen
) -> Page[ProductOut]:
    """By SKU."""
    having_custom = having(session, Entity.PRODUCT, Product.id, wanted.custom)
    return await _LIST.page(session, paging, *_conditions(wanted), *having_custom)


def _conditions(wanted: ProductFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.q:
        yield or_(Product.sku.icontains(wanted.q, autoescape=True), Product.name.icontains(wanted.q, autoescape=True))
    if wanted.active is not None:
        yield Product.active.is_(wanted.active)
    if wanted.sku is not None:
        yield Product.sku == wanted.sku
    if wanted.barcode is not None:
        yield Product.barcode == wanted.barcode


async def create_product(session: TenantSession, data: ProductIn, *, sku_limit: int | None) -> Product:
    check(session, Entity.PRODUCT, data.custom)
    product = Product(**msgspec.structs.asdict(data))
    session.add(product)
    await _flush(session, data.sku)
    await emit(session, ProductCreated([ProductFacts(product.id, product.sku, product.name)]))
    record(session, "product.create", product.sku, id=product.id, **msgspec.to_builtins(data))
    if data.active:
        await quotas.take(session, Quota.SKUS, sku_limit)
    return product


async def change_product(
    session: TenantSession, product_id: UUID, patch: ProductPatch, *, if_match: str | None, sku_limit: int | None
) -> Product:
    product = await _locked(session, product_id)
    check_if_match(if_match, product.version)
    was_active = product.active
    if patch.custom is not msgspec.UNSET:
        check(session, Entity.PRODUCT, patch.custom)
    sku = product.sku
    changed = apply_patch(product, patch)
    if changed:
        product.version += 1
        product.updated_at = datetime.now(UTC)
        await _flush(session, product.sku)
        await emit(session, ProductChanged(product.id, product.sku, product.name, product.active, product.version))
        record(session, "product.change", sku, id=product.id, changes=changed)
    if product.active and not was_active:
        await quotas.take(session, Quota.SKUS, sku_limit)
    elif was_active and not product.active:
        await quotas.give_back(session, Quota.SKUS)
    return product


async def delete_product(session: TenantSession, product_id: UUID, *, if_match: str | None) -> None:
    """Only one that never moved: the ledger refers to its balances for ever."""
    product = await _locked(session, product_id)
    check_if_match(if_match, product.version)
    sku, active = product.sku, product.active
    await session.delete(product)
    try:
        await session.flush()
    except IntegrityError as error:
        raise ProductHasHistoryError(sku) from error
    await emit(session, ProductDeleted(product_id, sku))
    record(session, "product.delete", sku, id=product_id)
    if active:
        await quotas.give_back(session, Quota.SKUS)


async def _locked(session: TenantSession, product_id: UUID) -> Product:
    product = await session.scalar(_BY_ID.with_for_update(), {"product_id": product_id})
    if product is None:
        raise ProductNotFoundError(product_id)
    return product


async def _flush(session: TenantSession, sku: str) -> None:
    try:
        await session.flush()
    except IntegrityError as error:
        if violated_constraint(error) == _SKU_CONSTRAINT:
            raise SkuTakenError(sku) from error
        raise


class EnsuredProducts(msgspec.Struct, frozen=True):
    created: int
    refused: frozenset[str]
    """SKUs for which the plan leaves no room."""
    lacking: dict[str, str] = {}
    """SKUs that are new, while their custom values are not what the tenant requires, and why."""


# COPY is refused under row-level security; one INSERT from arrays is next best. Ordered: two of these at once then
# wait for each other in one direction only.
_INSERT_MISSING = text(
    """
    INSERT INTO product (tenant_id, id, sku, name, custom)
    SELECT :tenant, n.id, n.sku, n.name, coalesce(CAST(n.custom AS jsonb), '{}')
    FROM unnest(CAST(:ids AS uuid[]), CAST(:skus AS text[]), CAST(:names AS text[]), CAST(:customs AS text[]))
         AS n (id, sku, name, custom)
    ORDER BY n.sku COLLATE "C"
    ON CONFLICT (tenant_id, sku) DO NOTHING
    RETURNING sku
    """
).bindparams(bindparam("customs", type_=ARRAY(Text)))


async def ensure_products(
    session: TenantSession,
    products: Sequence[tuple[str, str]],
    *,
    sku_limit: int | None,
    custom: Mapping[str, Values] = MappingProxyType({}),
) -> EnsuredProducts:
    """Create those of `products` (SKU, name) that do not exist, up to the limit; the first in the list go first.

    For imports: a handful of statements, and one event, whatever their number. SKUs must differ from each other.
    `custom`: values by SKU, of those that have any; one that exists keeps its own.
    """
    lacking: dict[str, str] = {}
    if unfit := _unfit(defined(session, Entity.PRODUCT), products, custom):
        there = set(await session.scalars(select(Product.sku).where(Product.sku.in_(unfit))))
        lacking = {sku: why for sku, why in unfit.items() if sku not in there}
        products = [(sku, name) for sku, name in products if sku not in unfit]
    if not products:
        return EnsuredProducts(0, frozenset(), lacking)
    ids = {sku: new_id() for sku, _ in products}
    inserted = set(
        await session.scalars(
            _INSERT_MISSING,
            {
                "tenant": session.info["tenant_id"],
                "ids": list(ids.values()),
                "skus": [sku for sku, _ in products],
                "names": [name for _, name in products],
                # unnest() fills what is shorter with nulls.
                "customs": [_encode(custom.get(sku, {})).decode() for sku, _ in products] if custom else [],
            },
        )
    )
    granted = await quotas.take_up_to(session, Quota.SKUS, sku_limit, len(inserted))
    in_order = [(sku, name) for sku, name in products if sku in inserted]
    surplus = [sku for sku, _ in in_order[granted:]]
    if surplus:
        await session.execute(delete(Product).where(Product.sku.in_(surplus)))
    if granted:
        await emit(session, ProductCreated([ProductFacts(ids[sku], sku, name) for sku, name in in_order[:granted]]))
    return EnsuredProducts(granted, frozenset(surplus), lacking)


def _unfit(fields: Fields, products: Sequence[tuple[str, str]], custom: Mapping[str, Values]) -> dict[str, str]:
    """Why each could not be made; those without values are judged together."""
    bare = next(problems(fields, {}), None)
    if not custom and bare is None:
        return {}
    first = {sku: next(problems(fields, custom[sku]), None) if sku in custom else bare for sku, _ in products}
    return {sku: problem["message"] for sku, problem in first.items() if problem is not None}
