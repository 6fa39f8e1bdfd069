"""Applying a patch to a row, and what the audit says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from strata.tenancy.scoping import TenantModel


def apply_patch(row: TenantModel, patch: msgspec.Struct) -> dict[str, object]:
    """Set what the patch gives; what was and is, of each member that it changes."""
    changed: dict[str, object] = {}
    for name, value in msgspec.structs.asdict(patch).items():
        if value is msgspec.UNSET:
            continue
        before = getattr(row, name)
        if before != value:
            changed[name] = {"from": before, "to": value}
            setattr(row, name, value)
    return changed
