"""Prometheus metrics of the HTTP edge, per tenant as long as that stays few.

A label value costs memory here and in Prometheus for as long as it is scraped: tenants beyond the first `MOST_TENANTS`
share one, addresses that match no route share one, and methods are those HTTP has.
"""

from __future__ import annotations

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

log = structlog.get_logger(__name__)

MOST_TENANTS = 500
SLOW_MS = 2000.0
NO_TENANT = "-"
OTHERS = "other"
UNMATCHED = "unmatched"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
_LABELS = ("tenant", "plan", "method", "route", "status")
_MOST_SERIES = 20_000

_Series = tuple[Histogram, Counter, Counter]


class HttpMetrics:
    def __init__(self, registry: CollectorRegistry | None = None, *, most_tenants: int = MOST_TENANTS) -> None:
        # One of its own, not prometheus-client's global one: two applications in one process (tests) must not share.
        self.registry = registry or CollectorRegistry()
        self._most_tenants = most_tenants
        self._tenants: set[str] = set()
        self._series: dict[tuple[str, str, str, str, int], _Series] = {}
        self._duration = Histogram(
            "http_request_duration_ms", "Time to the end of the response.", _LABELS,
            buckets=_BUCKETS_MS, registry=self.registry,
        )  # fmt: skip
        self._requests = Counter("http_requests", "Requests answered.", _LABELS, registry=self.registry)
        self._slow = Counter(
            "http_slow_requests", f"Requests that took over {SLOW_MS:.0f} ms.", _LABELS, registry=self.registry
        )

    def observe(self, *, tenant: str, plan: str, method: str, route: str, status: int, duration_ms: float) -> None:
        key = (tenant, plan, method, route, status)
        series = self._series.get(key) or self._add_series(key)
        duration, requests, slow = series
        duration.observe(duration_ms)
        requests.inc()
        if duration_ms > SLOW_MS:
            slow.inc()
            log.warning("request.slow", method=method, route=route, status=status, duration_ms=round(duration_ms))

    def exposition(self) -> tuple[str, bytes]:
        return CONTENT_TYPE_LATEST, generate_latest(self.registry)

    def _add_series(self, key: tuple[str, str, str, str, int]) -> _Series:
        tenant, plan, method, route, status = key
        if tenant not in self._tenants:
            if len(self._tenants) >= self._most_tenants:
                tenant = OTHERS
            else:
                self._tenants.add(tenant)
        labels = (tenant, plan, method if method in _METHODS else OTHERS, route, str(status))
        series = (self._duration.labels(*labels), self._requests.labels(*labels), self._slow.labels(*labels))
        if len(self._series) >= _MOST_SERIES:
            self._series.clear()  # only the short cut; the counts live in the registry
        self._series[key] = series
        return series
