"""A brand as CSS custom properties, ready for the first bytes of a page.

Whatever a branding document says, nothing of it reaches a style sheet or an attribute as it came: colours are parsed to
numbers, font names are matched and quoted anew, addresses are taken apart. What does not parse is left out.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Protocol
from urllib.parse import quote, urlsplit

import msgspec

from strata.platform.web.colours import Colour, parse, readable_on, text_on

_PRIMARY = Colour(0x1F, 0x5F, 0x8B)
_SECONDARY = Colour(0xE8, 0xEE, 0xF3)
# Of what text in the brand's colour stands on, the two that leave least contrast (app.css: --ground, --surface).
_LIGHT_GROUND = Colour(0xF5, 0xF6, 0xF8)
_DARK_SURFACE = Colour(0x1B, 0x20, 0x27)
_GENERIC_FONTS = frozenset({"serif", "sans-serif", "monospace", "system-ui", "ui-sans-serif", "ui-serif", "ui-rounded"})
_FONT = re.compile(r"[A-Za-z][A-Za-z0-9 _-]{0,60}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*")
_MOST_FONTS = 8


class Theme(StrEnum):
    LIGHT = "light"
    DARK = "dark"
    AUTO = "auto"
    """As the visitor's device prefers."""


class Brand(Protocol):
    @property
    def product_name(self) -> str: ...
    @property
    def logo_url(self) -> str | None: ...
    @property
    def favicon_url(self) -> str | None: ...
    @property
    def primary_color(self) -> str: ...
    @property
    def secondary_color(self) -> str: ...
    @property
    def font_family(self) -> str: ...
    @property
    def theme(self) -> str: ...
    @property
    def custom_css(self) -> str: ...
    @property
    def support_url(self) -> str | None: ...
    @property
    def terms_url(self) -> str | None: ...
    @property
    def privacy_url(self) -> str | None: ...


class Look(msgspec.Struct, frozen=True):
    name: str
    theme: Theme
    primary: Colour
    style: str
    """A rule that sets the custom properties; safe inside a style element."""
    icon_url: str
    logo_url: str | None
    image_origins: tuple[str, ...]
    support_url: str | None
    terms_url: str | None
    privacy_url: str | None
    custom_css: str


def look_of(brand: Brand) -> Look:
    primary = parse(brand.primary_color, _PRIMARY)
    secondary = parse(brand.secondary_color, _SECONDARY)
    theme = Theme(brand.theme) if brand.theme in set(Theme) else Theme.LIGHT
    properties = {
        "--color-primary": primary,
        "--color-secondary": secondary,
        "--font-family": font_family(brand.font_family),
        "--on-primary": text_on(primary),
        "--on-secondary": text_on(secondary),
        "--primary-text": readable_on(primary, _LIGHT_GROUND),
        "--primary-text-on-dark": readable_on(primary, _DARK_SURFACE),
    }
    logo, icon = web_address(brand.logo_url), web_address(brand.favicon_url)
    return Look(
        name=brand.product_name,
        theme=theme,
        primary=primary,
        style=":root{" + ";".join(f"{name}:{value}" for name, value in properties.items()) + "}",
        icon_url=icon or _drawn_icon(brand.product_name, primary),
        logo_url=logo,
        image_origins=tuple(sorted({origin for url in (logo, icon) if url and (origin := _origin(url))})),
        support_url=web_address(brand.support_url, mail=True),
        terms_url=web_address(brand.terms_url),
        privacy_url=web_address(brand.privacy_url),
        custom_css=brand.custom_css,
    )


def font_family(text: str) -> str:
    """A font-family value made of the names in `text` that are plain; ends in a generic family."""
    families = []
    for part in text.split(",")[:_MOST_FONTS]:
        name = part.strip().strip("\"'").strip()
        if name.lower() in _GENERIC_FONTS:
            families.append(name.lower())
        elif _FONT.fullmatch(name):
            families.append(f'"{name}"')
    if not families or families[-1].startswith('"'):
        families.append("sans-serif")
    return ",".join(families)


def web_address(url: str | None, *, mail: bool = False) -> str | None:
    """The address when it is plain https (or a path here, or mailto where allowed), else None: never javascript: or data:."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    rest = url[len(parts.scheme) + 3 + len(parts.netloc) :] if parts.netloc else url
    if parts.scheme == "https" and parts.hostname and _HOST.fullmatch(parts.hostname) and parts.username is None:
        netloc = parts.hostname if port is None else f"{parts.hostname}:{port}"
        return f"https://{netloc}{rest}" if _PATH.fullmatch(rest) else None
    if mail and parts.scheme == "mailto" and re.fullmatch(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+", parts.path):
        return f"mailto:{parts.path}"
    if (
        not parts.scheme
        and not parts.netloc
        and url.startswith("/")
        and not url.startswith("//")
        and _PATH.fullmatch(url)
    ):
        return url
    return None


def _origin(url: str) -> str | None:
    parts = urlsplit(url)
    return f"https://{parts.netloc}" if parts.netloc else None


def _drawn_icon(name: str, primary: Colour) -> str:
    """The brand's first letter on its colour, so that a browser asks for no /favicon.ico that is not there."""
    first = next((character for character in name if character.isalnum()), "•").upper()
    svg = (
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'>"
        f"<rect width='32' height='32' rx='7' fill='{primary}'/>"
        f"<text x='16' y='23' font-family='sans-serif' font-size='20' font-weight='700' text-anchor='middle' "
        f"fill='{text_on(primary)}'>{first}</text></svg>"
    )
    return f"data:image/svg+xml,{quote(svg)}"
