from __future__ import annotations

from django.http import HttpRequest, JsonResponse
from django.urls import path

from tests.bench.peers.schemas.shop.models import Product


def product_by_sku(request: HttpRequest, sku: str) -> JsonResponse:
    product = Product.objects.get(sku=sku)
    response = JsonResponse(
        {
            "id": product.id,
            "sku": product.sku,
            "name": product.name,
            "barcode": product.barcode,
            "unit": product.unit,
            "weight_grams": product.weight_grams,
            "attributes": product.attributes,
            "expiry_policy": product.expiry_policy,
            "active": product.active,
            "version": product.version,
            "created_at": product.created_at,
            "updated_at": product.updated_at,
        }
    )
    # Django's CommonMiddleware would do it, for more.
    response["Content-Length"] = str(len(response.content))
    return response


urlpatterns = [path("api/v1/products/by-sku/<str:sku>", product_by_sku)]
