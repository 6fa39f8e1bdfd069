"""The one guard of the whole application: every route says what it needs, and a route that says nothing is closed."""

from __future__ import annotations

import structlog
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send

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


class Authorisation:
    """Litestar runs it between its router and every route, whatever kind of route that is.

    A middleware and not one of Litestar's guards: before each guard Litestar copies the handler, which took 10 µs where
    this takes 2.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        authorise(scope, scope["route_handler"])
        await self._app(scope, receive, send)


def authorise(scope: Scope, handler: BaseRouteHandler) -> None:
    state = scope["state"]
    context: TenantContext | None = state["context"]
    method = str(scope.get("method", ""))
    if not is_public(handler):
        permission = permission_of(handler)
        if permission is not None:
            _check(permission, state["host"], state["claims"])
        elif method != "OPTIONS":
            # Litestar's own answer to OPTIONS names the methods, nothing else.
            log.error("route.names_no_permission", route=str(handler))
            raise RouteClosedError
    if context is None or context.status is not TenantStatus.READ_ONLY or method in SAFE_METHODS:
        return
    if not changes_nothing(handler):
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
