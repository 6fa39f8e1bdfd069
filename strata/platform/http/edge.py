"""The outermost ASGI layer. Pure ASGI, one layer for all of it: every layer of Litestar's own costs each request some 6 µs."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from strata.platform.http.problems import ProblemResponses
from strata.platform.http.request_id import HEADER, request_id
from strata.platform.metrics import NO_TENANT, UNMATCHED, HttpMetrics

log = structlog.get_logger(__name__)

Answer = tuple[int, str, bytes]
OperationalEndpoint = Callable[[Scope], Awaitable[Answer]]
"""Answers load balancers and collectors, who come by address: on any host, before any tenant is looked for."""

CONTENT_SECURITY_POLICY = (
    b"default-src 'self'; img-src 'self' data: https:; style-src 'self' 'unsafe-inline'; font-src 'self' https:; "
    b"object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
# Without includeSubDomains: on a tenant's own domain the names below it are not ours to decide about.
_HSTS = (b"strict-transport-security", b"max-age=63072000")
_CSP = b"content-security-policy"
_POLICY_VIOLATION = 1008
_METHOD_NOT_ALLOWED = 405
_GET, _HEAD = "GET", "HEAD"

LABELS = "metric_labels"
"""Key of the scope's state under which the layers inside leave (tenant, plan) for the metrics."""


class Edge:
    def __init__(
        self,
        app: ASGIApp,
        *,
        problems: ProblemResponses,
        metrics: HttpMetrics,
        operational: dict[str, OperationalEndpoint],
        https: bool,
    ) -> None:
        self._app = app
        self._problems = problems
        self._metrics = metrics
        self._operational = operational
        self._headers = [*_SECURITY_HEADERS, _HSTS] if https else [*_SECURITY_HEADERS]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            # No route speaks WebSocket yet; one that did would need the tenant resolved first, so all are refused.
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": "not served"})
            return
        started = time.perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})
        identity = request_id(_first(scope, HEADER))
        state["request_id"] = identity
        structlog.contextvars.bind_contextvars(request_id=identity, tenant_id=None)
        status = 0

        async def send_dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                if status == _METHOD_NOT_ALLOWED:
                    headers = _allowing_head(headers)
                message["headers"] = self._dressed(headers, identity.encode("ascii"))
            elif inside is not scope and message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        # Routes know GET; what they answer to it goes out to HEAD without the content (RFC 9110, 9.3.2). A copy of the
        # scope: metrics and the server tell the two apart.
        inside = scope if scope["method"] != _HEAD else cast("Scope", {**scope, "method": _GET})
        try:
            await self._answer(inside, receive, send_dressed)
        except Exception as error:
            if status:
                # Half an answer is out; the server cuts the connection, which is all that can still be said.
                log.exception("request.failed_after_start")
                raise
            await self._problems.send(error, inside, send_dressed)
        finally:
            self._observe(inside, scope["method"], state, status or 499, started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._operational.get(scope["path"])
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        status, media_type, body = await endpoint(scope)
        headers = [
            (b"content-type", media_type.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _dressed(self, headers: list[tuple[bytes, bytes]], identity: bytes) -> list[tuple[bytes, bytes]]:
        # A page may bring a stricter policy of its own, with a nonce for instance.
        if not any(name.lower() == _CSP for name, _ in headers):
            headers.append((_CSP, CONTENT_SECURITY_POLICY))
        headers += self._headers
        headers.append((HEADER, identity))
        return headers

    def _observe(self, scope: Scope, method: str, state: dict[str, Any], status: int, started: float) -> None:
        tenant, plan = state.get(LABELS, (NO_TENANT, NO_TENANT))
        self._metrics.observe(
            tenant=tenant,
            plan=plan,
            method=method,
            route=str(scope.get("path_template") or UNMATCHED),
            status=status,
            duration_ms=(time.perf_counter() - started) * 1000,
        )


def _first(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return None


def _allowing_head(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Routes name GET in Allow; whatever takes that takes HEAD."""
    return [
        (name, value.replace(b"GET", b"GET, HEAD") if name.lower() == b"allow" and b"HEAD" not in value else value)
        for name, value in headers
    ]
