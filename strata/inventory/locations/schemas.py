from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from strata.inventory.text_rules import BinCode, Name, PlaceCode


class WarehouseIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    code: PlaceCode
    name: Name


class ZoneIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    warehouse_id: UUID
    code: PlaceCode
    name: Name


class BinIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    zone_id: UUID
    code: BinCode
    active: bool = True


class PlacePatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a warehouse or a zone. What is absent stays."""

    code: PlaceCode | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    active: bool | UnsetType = UNSET


class BinPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is absent stays."""

    code: BinCode | UnsetType = UNSET
    zone_id: UUID | UnsetType = UNSET
    active: bool | UnsetType = UNSET


class WarehouseOut(msgspec.Struct, frozen=True):
    id: UUID
    code: str
    name: str
    active: bool
    version: int
    created_at: datetime
    updated_at: datetime


class ZoneOut(msgspec.Struct, frozen=True):
    id: UUID
    code: str
    name: str
    warehouse_id: UUID
    warehouse: str
    """The warehouse's code."""
    active: bool
    version: int
    created_at: datetime
    updated_at: datetime


class BinOut(msgspec.Struct, frozen=True):
    id: UUID
    code: str
    zone_id: UUID
    zone: str
    """The zone's code."""
    warehouse_id: UUID
    warehouse: str
    """The warehouse's code."""
    active: bool
    version: int
    created_at: datetime
    updated_at: datetime


class BinFilter(msgspec.Struct, frozen=True):
    warehouse: str | None = None
    zone: str | None = None
    active: bool | None = None
    q: str | None = None
