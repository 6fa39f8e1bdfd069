"""The one guard of the whole application: every route says what it needs, and a route that says nothing is closed."""

from __future__ import annotations

from typing import Any

import structlog
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from strata.identity.errors import PermissionMissingError, RouteClosedError, SignInNeededError
from strata.identity.permissions import Permission, changes_nothing, is_public, permission_of
from strata.platform.errors import NotFoundError
from strata.platform.tokens import Claims
from strata.routing.host import HostKind, ResolvedHost
from strata.routing.resolve import SAFE_METHODS
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import TenantReadOnlyError
from strata.tenancy.model import TenantStatus

log = structlog.get_logger(__name__)


async def authorise(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    state = connection.scope["state"]
    context: TenantContext | None = state["context"]
    if not is_public(handler):
        permission = permission_of(handler)
        if permission is not None:
            _check(permission, state["host"], state["claims"])
        elif connection.scope.get("method") != "OPTIONS":
            log.error("route.names_no_permission", route=str(handler))
            raise RouteClosedError
    if context is not None and context.status is TenantStatus.READ_ONLY:
        method = str(connection.scope.get("method", ""))
        if method not in SAFE_METHODS and not changes_nothing(handler):
            raise TenantReadOnlyError(context.id, context.status_reason)


def _check(permission: Permission, host: ResolvedHost, claims: Claims | None) -> None:
    # Staff's addresses do not exist on tenants' hosts, nor tenants' on the console's, whoever asks.
    if permission.for_staff != (host.kind is HostKind.CONSOLE) or host.kind is HostKind.BASE:
        message = "There is nothing at this address; check it."
        raise NotFoundError(message)
    if claims is None:
        raise SignInNeededError
    if permission not in claims.permissions:
        raise PermissionMissingError(permission)
