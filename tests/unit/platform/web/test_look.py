"""Whatever a branding document says, a page stays a page."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.platform.web.colours import WHITE, Colour, parse, readable_on, text_on
from strata.platform.web.look import Theme, font_family, look_of, web_address

COLOURS = st.builds(Colour, *[st.integers(0, 255)] * 3)


class Document(msgspec.Struct, frozen=True):
    product_name: str = "Hofladen"
    logo_url: str | None = None
    favicon_url: str | None = None
    primary_color: str = "#7a1fa2"
    secondary_color: str = "#f3e5f5"
    font_family: str = "Inter, sans-serif"
    theme: str = "light"
    custom_css: str = ""
    support_url: str | None = None
    terms_url: str | None = None
    privacy_url: str | None = None


@given(
    st.builds(
        Document,
        primary_color=st.text(),
        secondary_color=st.text(),
        font_family=st.text() | st.text(alphabet="abz,;:{}<>'\"\\()/ -"),
        theme=st.text(),
        product_name=st.text(min_size=1),
    )
)
def test_no_document_can_write_css_or_markup(document: Document) -> None:
    look = look_of(document)
    # One rule, and in it nothing but names, colours, digits and quoted plain words.
    assert re.fullmatch(r":root\{(?:--[a-z-]+:[A-Za-z0-9#,\" _-]+;?)+\}", look.style)
    assert look.theme in set(Theme)
    assert re.fullmatch(r"data:image/svg\+xml,[A-Za-z0-9%._~/-]+", look.icon_url)


@given(COLOURS)
def test_text_on_and_in_any_colour_can_be_read(colour: Colour) -> None:
    assert text_on(colour).contrast(colour) >= 4.5
    for surface in (WHITE, Colour(0x1B, 0x20, 0x27)):
        assert readable_on(colour, surface).contrast(surface) >= 4.5


def test_colours_that_can_be_read_stay_as_they_are() -> None:
    blue = parse("#1f5f8b", WHITE)
    assert str(readable_on(blue, WHITE)) == "#1f5f8b"
    assert str(parse("#FfC", WHITE)) == "#ffffcc"


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("Inter, sans-serif", '"Inter",sans-serif'),
        ("'Open Sans', Georgia", '"Open Sans","Georgia",sans-serif'),
        ("", "sans-serif"),
        ("x;} body{display:none", "sans-serif"),
        ("url(//evil), system-ui", "system-ui"),
    ],
)
def test_font_families(text: str, family: str) -> None:
    assert font_family(text) == family


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://cdn.example/a/logo.svg?v=2", "https://cdn.example/a/logo.svg?v=2"),
        ("https://cdn.example:8443/x", "https://cdn.example:8443/x"),
        ("/files/logo.png", "/files/logo.png"),
        ("http://cdn.example/logo.svg", None),
        ("javascript:alert(1)", None),
        ("data:text/html,x", None),
        ("//evil.example/x", None),
        ("https://user@cdn.example/x", None),
        ("https://cdn.example/x; script-src *", None),
        ('https://cdn.example/"><script>', None),
        ("https://[::1", None),
        ("mailto:help@example.com", None),
        (None, None),
    ],
)
def test_addresses(url: str | None, kept: str | None) -> None:
    assert web_address(url) == kept


def test_support_may_be_a_mail_address() -> None:
    assert web_address("mailto:help@example.com?subject=x", mail=True) == "mailto:help@example.com"
