"""Renders pages and parts of pages: one layout, one policy, whatever domain the template belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Request, Response
from litestar.enums import MediaType

from strata.platform.web.assets import asset_url
from strata.platform.web.formats import Formats
from strata.platform.web.look import Look
from strata.platform.web.policy import content_policy, new_nonce

_TEMPLATES = Path(__file__).with_name("templates")


class Destination(msgspec.Struct, frozen=True):
    """An entry of the navigation."""

    title: str
    url: str
    icon: str


class Frame(msgspec.Struct, frozen=True):
    """What stands around a page's own content."""

    look: Look
    formats: Formats
    destinations: tuple[Destination, ...] = ()
    account: str | None = None
    """Whose pages these are: the organisation's name."""
    user: str | None = None
    """None: nobody has signed in."""
    custom_style_url: str | None = None


class Pages:
    """The templates of one domain, on top of those that all share."""

    def __init__(self, directory: Path | None = None) -> None:
        folders = [_TEMPLATES] if directory is None else [directory, _TEMPLATES]
        self._environment = Environment(
            loader=FileSystemLoader(folders),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals["asset"] = asset_url

    def markup(self, template: str, frame: Frame, path: str, nonce: str, **values: object) -> str:
        return self._environment.get_template(template).render(
            frame=frame, look=frame.look, formats=frame.formats, path=path, nonce=nonce, **values
        )

    def page(
        self, template: str, request: Request[Any, Any, Any], frame: Frame, status: int = 200, **values: object
    ) -> Response[str]:
        nonce = new_nonce()
        return Response(
            self.markup(template, frame, request.url.path, nonce, **values),
            status_code=status,
            media_type=MediaType.HTML,
            headers=page_headers(nonce, frame.look),
        )


def page_headers(nonce: str, look: Look) -> dict[str, str]:
    return {
        "Content-Security-Policy": content_policy(nonce, look.image_origins),
        # Pages are made for one person and one moment; after signing out, «back» must not show them.
        "Cache-Control": "no-store",
        # The same address gives a whole page or, to htmx, a part of it.
        "Vary": "HX-Request, Cookie",
    }


def wants_part(request: Request[Any, Any, Any]) -> bool:
    """Whether htmx asks, which swaps a part; going back in history it wants the whole page."""
    headers = request.headers
    return headers.get("HX-Request") == "true" and headers.get("HX-History-Restore-Request") != "true"
