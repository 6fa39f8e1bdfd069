"""Lets a tenant's requests in as far as its limits go, and counts them. Behind the routing, which says whose they are.

What counts against which limit:
- requests at once: every request on a tenant's behalf, pages too;
- requests a minute: calls of the API by somebody signed in. Strangers do not count, or anybody could use up a tenant's
  allowance from outside; nor do pages, so that a program gone wild does not lock people out.
The console, health checks and static files belong to no tenant and never come here.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from litestar.types import ASGIApp, HTTPReceiveMessage, Message, Receive, Scope, Send, WebSocketReceiveMessage

from strata.platform.tokens import Claims
from strata.routing.resolve import SAFE_METHODS
from strata.tenancy.context import TenantContext
from strata.tenancy.limits.concurrency import Concurrency
from strata.tenancy.limits.errors import TooManyRequestsError
from strata.tenancy.limits.rates import Allowance, RateLimiter
from strata.tenancy.usage.meter import Tally, UsageMeter

_API = "/api/"


class TenantGate:
    def __init__(self, app: ASGIApp, rates: RateLimiter, concurrency: Concurrency, meter: UsageMeter) -> None:
        self._app = app
        self._rates = rates
        self._concurrency = concurrency
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = scope["state"]
        context: TenantContext | None = state["context"]
        if context is None:
            await self._app(scope, receive, send)
            return
        limits, concurrency, tally = context.limits, self._concurrency, self._meter.tally(context.id)
        claims: Claims | None = state["claims"]
        is_call = scope["path"].startswith(_API)
        try:
            allowance = None
            if claims is not None:
                self._meter.saw(context.id, claims.sub)
                if is_call:
                    allowance = self._rates.allowance(context.id, claims.sub, limits)
                    if allowance is not None:
                        await self._rates.spend(allowance)
            crowd = concurrency.enter(context.id, limits) or await concurrency.wait(context.id, limits)
        except TooManyRequestsError:
            tally.refused += 1
            raise
        began_ns = perf_counter_ns()
        tally.requests += 1
        tally.api_calls += is_call
        try:
            await self._app(scope, _received(scope, receive, tally), _sent(send, tally, allowance))
        finally:
            concurrency.leave(crowd, limits)
            tally.compute_ns += perf_counter_ns() - began_ns


def _received(scope: Scope, receive: Receive, tally: Tally) -> Receive:
    if scope.get("method") in SAFE_METHODS:
        return receive

    async def receive_counted() -> HTTPReceiveMessage | WebSocketReceiveMessage:
        message = await receive()
        if message["type"] == "http.request":
            tally.bytes_in += len(message["body"])
        return message

    return receive_counted


def _sent(send: Send, tally: Tally, allowance: Allowance | None) -> Send:
    async def send_counted(message: Message) -> None:
        if message["type"] == "http.response.body":
            tally.bytes_out += len(message["body"])
        elif allowance is not None and message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *allowance.headers()]
        await send(message)

    return send_counted
