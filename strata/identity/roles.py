"""Roles as sets of permissions. Tokens carry the permissions themselves, so that a verifier needs no table of roles."""

from __future__ import annotations

from enum import StrEnum

from strata.identity.permissions import Permission


class Role(StrEnum):
    ADMINISTRATOR = "administrator"
    WAREHOUSE_MANAGER = "warehouse-manager"
    OPERATOR = "operator"
    PURCHASING = "purchasing"
    SALES = "sales"
    VIEWER = "viewer"
    STAFF = "staff"
    """The platform's own people; no role of any tenant."""


_READS = frozenset(
    {
        Permission.PRODUCTS_READ,
        Permission.LOCATIONS_READ,
        Permission.STOCK_READ,
        Permission.MOVEMENTS_READ,
        Permission.IMPORTS_READ,
        Permission.PLAN_READ,
    }
)

_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.ADMINISTRATOR: frozenset(permission for permission in Permission if not permission.for_staff),
    Role.WAREHOUSE_MANAGER: _READS
    | {
        Permission.PRODUCTS_WRITE,
        Permission.LOCATIONS_WRITE,
        Permission.MOVEMENTS_WRITE,
        Permission.MOVEMENTS_APPROVE,
        Permission.IMPORTS_WRITE,
    },
    Role.OPERATOR: _READS | {Permission.MOVEMENTS_WRITE},
    Role.PURCHASING: _READS | {Permission.PRODUCTS_WRITE},
    Role.SALES: frozenset({Permission.PRODUCTS_READ, Permission.STOCK_READ}),
    Role.VIEWER: _READS,
    Role.STAFF: frozenset(permission for permission in Permission if permission.for_staff),
}


def permissions_of(role: Role) -> tuple[Permission, ...]:
    return tuple(sorted(_PERMISSIONS[role]))
