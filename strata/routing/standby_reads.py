"""Which requests may be answered from a standby, and what their clients are told of their own writes.

A browser keeps cookies, so one that lives for some seconds says that it has changed something lately; a standby that
serves is never further behind. A client with a bearer token may keep nothing: it reads from the primary, unless it sends
`Strata-Position`, the one it got with its last change («0» when it has made none), and gets a new one with each change.

Only GET and HEAD go to standbys. When one goes away under them they are run again, on the primary: nobody notices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import structlog

from strata.routing.resolve import SESSION_COOKIE
from strata.tenancy.replicas.client import CLIENT, ClientReads
from strata.tenancy.replicas.lease import OVER_AFTER_S
from strata.tenancy.replicas.position import UNKNOWN

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger(__name__)

POSITION_HEADER = b"strata-position"
WROTE_COOKIE = "strata_wrote"
NO_WRITE_YET = "0"
_REPEATABLE = frozenset({"GET", "HEAD"})
_LONGEST_POSITION = 128
# The lease, and as much again as clocks of browsers and slow answers may take from it.
_REMEMBERED_S = math.ceil(OVER_AFTER_S) + 1


class StandbyReads:
    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        secure = "; Secure" if https else ""
        self._wrote = f"{WROTE_COOKIE}=1; Path=/; Max-Age={_REMEMBERED_S}; HttpOnly; SameSite=Lax{secure}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = client_of(str(scope.get("method", "")), scope["headers"])

        async def send_dressed(message: Message) -> None:
            if message["type"] == "http.response.start" and client.wrote:
                message["headers"] = [*message.get("headers", ()), self._told(client)]
            await send(message)

        reset = CLIENT.set(client)
        try:
            if client.may_use_standby:
                await self._run_again_if_lost(client, scope, receive, send_dressed)
            else:
                await self._app(scope, receive, send_dressed)
        finally:
            CLIENT.reset(reset)
            # Tasks that outlive the request keep the object; what they learn, nobody tells the client.
            client.may_use_standby = False

    def _told(self, client: ClientReads) -> tuple[bytes, bytes]:
        if client.wants_position:
            return POSITION_HEADER, (client.position or UNKNOWN).encode()
        return b"set-cookie", self._wrote

    async def _run_again_if_lost(self, client: ClientReads, scope: Scope, receive: Receive, send: Send) -> None:
        before: dict[str, Any] = dict(scope)
        state = dict(scope["state"])
        answer = _Answer(client, send)
        await self._app(scope, receive, answer.send)
        if not answer.withheld:
            return
        log.info("standby.run_again", path=scope["path"])
        # As it was: the layers outside read from this very scope, and Litestar has left its own in it.
        own = cast("dict[str, Any]", scope)
        kept: dict[str, Any] = own["state"]
        kept.clear()
        kept.update(state)
        own.clear()
        own.update({**before, "state": kept})
        await self._app(scope, receive, send)


class _Answer:
    """Lets an answer through, but for a failure that losing a standby has caused."""

    def __init__(self, client: ClientReads, send: Send) -> None:
        self._client = client
        self._send = send
        self.withheld = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            failed = message["status"] >= HTTPStatus.INTERNAL_SERVER_ERROR
            self.withheld = failed and self._client.lost_standby
        if not self.withheld:
            await self._send(message)


def client_of(method: str, headers: Iterable[tuple[bytes, bytes]]) -> ClientReads:
    authorized, position, cookies = False, None, b""
    for name, value in headers:
        match name:
            case b"authorization":
                authorized = True
            case b"cookie":
                cookies += b";" + value
            case b"strata-position":
                position = value.decode("latin-1").strip()
    if position is not None and authorized:
        token = None if position == NO_WRITE_YET else position[:_LONGEST_POSITION]
        return ClientReads(may_use_standby=method in _REPEATABLE, token=token, wants_position=True)
    names = {part.partition(b"=")[0].strip() for part in cookies.split(b";")}
    quiet = SESSION_COOKIE.encode() in names and WROTE_COOKIE.encode() not in names
    return ClientReads(may_use_standby=not authorized and quiet and method in _REPEATABLE)
