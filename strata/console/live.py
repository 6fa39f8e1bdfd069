"""Parts of a page that are sent anew whenever they read otherwise (SSE), until what they show rests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from litestar import Request
from litestar.response import ServerSentEvent, ServerSentEventMessage
from sqlalchemy.exc import SQLAlchemyError

from strata.console.surroundings import PAGES, frame_for
from strata.platform.tokens import Claims

log = structlog.get_logger(__name__)

_LOOK_EVERY_S = 0.5
_ALIVE_EVERY_S = 10.0
END = "end"
"""There is no more to come: the browser must not ask again."""
SILENT = "silent"
"""What the page shows may be old: the catalog does not answer."""


class Look(msgspec.Struct, frozen=True):
    parts: dict[str, str]
    """HTML by the name of its place in the page."""
    rests: bool


Values = Mapping[str, Any]


def live_parts(
    request: Request[Any, Any, Any],
    claims: Claims,
    templates: Sequence[str],
    read: Callable[[], Awaitable[Values]],
    rests: Callable[[Values], bool],
) -> ServerSentEvent:
    """`templates` as «move_figures»: the place in the page is what stands behind the line."""
    frame = frame_for(claims)

    async def look() -> Look:
        values = await read()
        parts = {
            template.partition("_")[2]: PAGES.markup(f"console/{template}.html", frame, request.url.path, "", **values)
            for template in templates
        }
        return Look(parts, rests(values))

    return ServerSentEvent(live(look))


async def live(look: Callable[[], Awaitable[Look]]) -> AsyncIterator[ServerSentEventMessage]:
    """`look` renders all parts; those that are as they were are not sent."""
    sent: dict[str, str] = {}
    quiet_s, silent = 0.0, False
    while True:
        try:
            now = await look()
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning("live.catalog_silent", error=type(error).__name__)
            if not silent:
                yield ServerSentEventMessage(data="The catalog does not answer: this may be old.", event=SILENT)
            silent = True
        else:
            if silent:
                silent = False
                yield ServerSentEventMessage(data="", event=SILENT)
            for name, html in now.parts.items():
                if sent.get(name) != html:
                    sent[name], quiet_s = html, 0.0
                    yield ServerSentEventMessage(data=html, event=name)
            if now.rests:
                yield ServerSentEventMessage(data="ended", event=END)
                return
        if quiet_s >= _ALIVE_EVERY_S:
            # Proxies cut connections on which nothing is said.
            quiet_s = 0.0
            yield ServerSentEventMessage(comment="alive")
        await asyncio.sleep(_LOOK_EVERY_S)
        quiet_s += _LOOK_EVERY_S
