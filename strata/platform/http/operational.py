"""/healthz, /readyz and /metrics: for load balancers, orchestrators and collectors."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from litestar.types import Scope

from strata.platform.health import Readiness
from strata.platform.http.edge import Answer, OperationalEndpoint
from strata.platform.metrics import HttpMetrics

_JSON = "application/json"
_ALIVE: Answer = (200, _JSON, b'{"status":"alive"}')
_NOT_HERE: Answer = (404, _JSON, msgspec.json.encode({"status": "not found"}))


Exposition = Callable[[], Awaitable[bytes]]
"""Metrics in Prometheus' text format, looked up when they are asked for."""


def operational_endpoints(
    readiness: Readiness, metrics: HttpMetrics, *looked_up: Exposition
) -> dict[str, OperationalEndpoint]:
    return {
        "/healthz": _healthz,
        "/readyz": partial(_readyz, readiness),
        "/metrics": partial(_metrics, metrics, looked_up),
    }


async def _healthz(_scope: Scope) -> Answer:
    return _ALIVE


async def _readyz(readiness: Readiness, _scope: Scope) -> Answer:
    ready, document = await readiness.check()
    return (200 if ready else 503), _JSON, document


async def _metrics(metrics: HttpMetrics, looked_up: tuple[Exposition, ...], scope: Scope) -> Answer:
    """Only for collectors inside the network: the labels name tenants, and each tenant's users reach this same port."""
    if not _from_inside(scope):
        return _NOT_HERE
    media_type, body = metrics.exposition()
    return 200, media_type, b"".join([body, *[await each() for each in looked_up]])


def _from_inside(scope: Scope) -> bool:
    # What a proxy brings comes from outside, whatever the proxy's own address.
    if any(name == b"forwarded" or name.startswith(b"x-forwarded-") for name, _ in scope["headers"]):
        return False
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0]) if client else None
    except ValueError:
        return False
    return address is not None and (address.is_loopback or address.is_private)
