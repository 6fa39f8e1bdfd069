"""Puts `host`, `claims` and `context` into the scope's state, or refuses the request; nothing behind it guesses a tenant."""

from __future__ import annotations

from functools import partial
from typing import Any

import structlog
from litestar.types import ASGIApp, Receive, Scope, Send

from strata.platform.http.edge import LABELS
from strata.routing.origin import origin_of
from strata.routing.resolve import SAFE_METHODS, Resolver, refuse_closed
from strata.tenancy.audit.origin import acting_for
from strata.tenancy.model import TenantStatus


class TenantRouting:
    def __init__(self, app: ASGIApp, resolver: Resolver) -> None:
        self._app = app
        self._resolver = resolver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        resolution = await self._resolver.resolve(str(scope.get("method", "")), scope["headers"], scope.get("client"))
        state: dict[str, Any] = scope["state"]
        state["host"] = resolution.host
        state["claims"] = resolution.claims
        state["context"] = context = resolution.context
        if context is not None:
            state[LABELS] = (context.slug, context.plan)
            structlog.contextvars.bind_contextvars(tenant_id=str(context.id))
            if context.status is not TenantStatus.ACTIVE:
                # After the state is set: the page that says so is in the tenant's own look.
                refuse_closed(context)
        if scope.get("method") in SAFE_METHODS:
            await self._app(scope, receive, send)
            return
        with acting_for(partial(origin_of, scope, self._resolver.hosts)):
            await self._app(scope, receive, send)
