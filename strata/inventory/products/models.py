from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.scoping import TenantModel, Timestamped

AttributeValue = str | int | float | bool | None
Attributes = dict[str, AttributeValue]


class ExpiryPolicy(StrEnum):
    NONE = "none"
    """No expiry dates are kept."""
    OPTIONAL = "optional"
    REQUIRED = "required"
    """Nothing is received without a date."""


class Product(Timestamped, TenantModel):
    __tablename__ = "product"

    sku: Mapped[str]
    name: Mapped[str]
    barcode: Mapped[str | None]
    unit: Mapped[str] = mapped_column(default="each", server_default="each")
    weight_grams: Mapped[int | None]
    attributes: Mapped[Attributes] = mapped_column(JSONB, default=dict, server_default=text("'{}'"))
    custom: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict, server_default=text("'{}'"))
    expiry_policy: Mapped[str] = mapped_column(default=ExpiryPolicy.NONE, server_default=ExpiryPolicy.NONE)
    active: Mapped[bool] = mapped_column(default=True, server_default=text("true"))
    version: Mapped[int] = mapped_column(default=1, server_default=text("1"))
