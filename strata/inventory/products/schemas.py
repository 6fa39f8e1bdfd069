from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from strata.inventory.products.models import Attributes, AttributeValue, ExpiryPolicy
from strata.inventory.text_rules import Barcode, Name, Sku, Unit

_MOST_ATTRIBUTES = 100
_LONGEST_KEY = 64
_LONGEST_VALUE = 1000
_MAX_SAFE_INTEGER = 2**53 - 1

CustomValues = dict[str, str | int | float]

WeightGrams = Annotated[int, msgspec.Meta(ge=0, le=_MAX_SAFE_INTEGER)]


def _check_attributes(attributes: Attributes) -> None:
    if len(attributes) > _MOST_ATTRIBUTES:
        message = f"attributes: at most {_MOST_ATTRIBUTES}"
        raise ValueError(message)
    for key, value in attributes.items():
        if not 1 <= len(key) <= _LONGEST_KEY or "\0" in key:
            message = f"attributes: a key takes 1 to {_LONGEST_KEY} characters"
            raise ValueError(message)
        if isinstance(value, str) and (len(value) > _LONGEST_VALUE or "\0" in value):
            message = f"attributes.{key}: at most {_LONGEST_VALUE} characters"
            raise ValueError(message)


class ProductIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    sku: Sku
    name: Name
    barcode: Barcode | None = None
    unit: Unit = "each"
    weight_grams: WeightGrams | None = None
    attributes: dict[str, AttributeValue] = {}
    expiry_policy: ExpiryPolicy = ExpiryPolicy.NONE
    active: bool = True
    custom: CustomValues = {}
    """Of the fields that the organisation has defined, by key."""

    def __post_init__(self) -> None:
        _check_attributes(self.attributes)


class ProductPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is absent stays; attributes and custom values are replaced as a whole."""

    sku: Sku | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    barcode: Barcode | UnsetType | None = UNSET
    unit: Unit | UnsetType = UNSET
    weight_grams: WeightGrams | UnsetType | None = UNSET
    attributes: dict[str, AttributeValue] | UnsetType = UNSET
    expiry_policy: ExpiryPolicy | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    custom: CustomValues | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.attributes is not UNSET:
            _check_attributes(self.attributes)


class ProductOut(msgspec.Struct, frozen=True):
    id: UUID
    sku: str
    name: str
    barcode: str | None
    unit: str
    weight_grams: int | None
    attributes: dict[str, AttributeValue]
    custom: dict[str, str | int | float]
    expiry_policy: str
    active: bool
    version: int
    created_at: datetime
    updated_at: datetime


class ProductFilter(msgspec.Struct, frozen=True):
    q: str | None = None
    """Part of the SKU or the name, upper and lower case alike."""
    active: bool | None = None
    barcode: str | None = None
    sku: str | None = None
    custom: dict[str, str] = {}
    """Custom values, all of which it must have."""
