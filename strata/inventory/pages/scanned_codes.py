"""What a scanner reads may be the barcode on the goods rather than the SKU on the shelf."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from uuid import UUID

from sqlalchemy import or_, select

from strata.inventory.products.models import Product
from strata.tenancy.session import TenantReadSession


async def skus_by_barcode(session: TenantReadSession, codes: AbstractSet[str]) -> dict[str, str]:
    """For each code that is no SKU and the barcode of exactly one product: that product's SKU."""
    if not codes:
        return {}
    rows = (
        await session.execute(
            select(Product.sku, Product.barcode).where(or_(Product.sku.in_(codes), Product.barcode.in_(codes)))
        )
    ).all()
    skus = {row.sku for row in rows}
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.barcode in codes and row.barcode not in skus:
            found.setdefault(row.barcode, []).append(row.sku)
    return {barcode: matching[0] for barcode, matching in found.items() if len(matching) == 1}


async def product_ids(session: TenantReadSession, skus: AbstractSet[str]) -> dict[str, UUID]:
    rows = (await session.execute(select(Product.sku, Product.id).where(Product.sku.in_(skus)))).all()
    return {row.sku: row.id for row in rows}
