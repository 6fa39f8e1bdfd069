"""What can be allowed, and how a route says which it needs: `@get("/products", opt=requires(Permission.PRODUCTS_READ))`."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from litestar import Litestar
from litestar.handlers import BaseRouteHandler
from litestar.routes import ASGIRoute, HTTPRoute, WebSocketRoute

_PERMISSION = "permission"
_PUBLIC = "public"
_CHANGES_NOTHING = "changes_nothing"


class Permission(StrEnum):
    PRODUCTS_READ = "products:read"
    PRODUCTS_WRITE = "products:write"
    LOCATIONS_READ = "locations:read"
    LOCATIONS_WRITE = "locations:write"
    STOCK_READ = "stock:read"
    MOVEMENTS_READ = "movements:read"
    MOVEMENTS_WRITE = "movements:write"
    MOVEMENTS_APPROVE = "movements:approve"
    IMPORTS_READ = "imports:read"
    IMPORTS_WRITE = "imports:write"
    PLAN_READ = "plan:read"
    AUDIT_READ = "audit:read"
    USAGE_READ = "usage:read"
    ISOLATION_READ = "isolation:read"
    SETTINGS_READ = "settings:read"
    SETTINGS_WRITE = "settings:write"
    STAFF_TENANTS_READ = "staff:tenants:read"
    STAFF_TENANTS_WRITE = "staff:tenants:write"
    STAFF_CELLS_READ = "staff:cells:read"
    STAFF_CELLS_WRITE = "staff:cells:write"
    STAFF_MOVES_READ = "staff:moves:read"
    STAFF_MOVES_WRITE = "staff:moves:write"
    STAFF_AUDIT_READ = "staff:audit:read"
    STAFF_FLAGS_READ = "staff:flags:read"
    STAFF_FLAGS_WRITE = "staff:flags:write"

    @property
    def for_staff(self) -> bool:
        return self.startswith("staff:")


def requires(permission: Permission | str, *, changes_nothing: bool = False) -> dict[str, Any]:
    """The `opt` of a route that needs `permission`.

    `changes_nothing`: a POST that only reads (a search, a sign-in), which read-only tenants may send too.
    """
    return {_PERMISSION: Permission(permission), _CHANGES_NOTHING: changes_nothing}


def public(*, changes_nothing: bool = True) -> dict[str, Any]:
    """The `opt` of a route for everybody, signed in or not."""
    return {_PUBLIC: True, _CHANGES_NOTHING: changes_nothing}


def permission_of(handler: BaseRouteHandler) -> Permission | None:
    permission = handler.opt.get(_PERMISSION)
    return permission if isinstance(permission, Permission) else None


def is_public(handler: BaseRouteHandler) -> bool:
    return handler.opt.get(_PUBLIC) is True


def changes_nothing(handler: BaseRouteHandler) -> bool:
    return handler.opt.get(_CHANGES_NOTHING) is True


def routes_without_permission(app: Litestar) -> list[str]:
    """Every route that names neither a permission nor that it is public; a test keeps this empty."""
    return sorted(
        f"{methods} {path}"
        for path, methods, handler in _handlers(app)
        if permission_of(handler) is None and not is_public(handler)
    )


def _handlers(app: Litestar) -> Iterator[tuple[str, str, BaseRouteHandler]]:
    for route in app.routes:
        match route:
            case HTTPRoute():
                for handler in route.route_handlers:
                    # Litestar adds OPTIONS by itself; it answers with the methods alone.
                    if handler.http_methods != {"OPTIONS"}:
                        yield route.path, ",".join(sorted(handler.http_methods)), handler
            case ASGIRoute() | WebSocketRoute():
                yield route.path, type(route).__name__, route.route_handler
