from __future__ import annotations

from uuid import UUID

from strata.platform.errors import ConflictError, NotFoundError


class ProductNotFoundError(NotFoundError):
    code = "product-not-found"
    title = "No such product"

    def __init__(self, name: str | UUID) -> None:
        hint = (
            "list the products to find its id"
            if isinstance(name, UUID)
            else "SKUs are exact, upper and lower case differ"
        )
        super().__init__(f"There is no product «{str(name)[:80]}»; {hint}.")


class SkuTakenError(ConflictError):
    code = "sku-taken"
    title = "SKU in use"

    def __init__(self, sku: str) -> None:
        super().__init__(
            f"There is a product with SKU «{sku}» already; change that one, or choose another SKU.", extra={"sku": sku}
        )
        self.sku = sku


class ProductHasHistoryError(ConflictError):
    code = "product-has-history"
    title = "Product has moved"

    def __init__(self, sku: str) -> None:
        super().__init__(
            f"Stock of «{sku}» has moved, and its history stays; deactivate the product instead (active: false).",
            extra={"sku": sku},
        )
        self.sku = sku
