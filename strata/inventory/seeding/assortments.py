"""What a demo tenant deals in, read from assortments.toml beside this file."""

from __future__ import annotations

import tomllib
import zlib
from enum import StrEnum
from pathlib import Path

import msgspec

_IN_STORE = "20"
"""GS1's prefix for numbers that mean something within one company only."""
_DIGITS = 10


class AssortmentName(StrEnum):
    HARDWARE = "hardware"
    ELECTRONICS = "electronics"
    GROCERIES = "groceries"


class AssortedProduct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sku: str
    name: str
    weight_grams: int
    daily: int
    """Pieces that go out on an average day."""
    unit: str = "each"
    perishable: bool = False

    @property
    def barcode(self) -> str:
        """An EAN-13 that is the same every time."""
        digits = f"{_IN_STORE}{zlib.crc32(self.sku.encode()) % 10**_DIGITS:0{_DIGITS}d}"
        weighted = sum(int(digit) * (3 if index % 2 else 1) for index, digit in enumerate(digits))
        return f"{digits}{-weighted % 10}"


class AssortedWarehouse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    code: str
    name: str


class Assortment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    warehouses: list[AssortedWarehouse]
    """The first receives goods; the second is supplied from it."""
    products: list[AssortedProduct]


def assortment(name: AssortmentName) -> Assortment:
    document = tomllib.loads(Path(__file__).with_name("assortments.toml").read_text(encoding="utf-8"))
    return msgspec.convert(document[name], Assortment)
