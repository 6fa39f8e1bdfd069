"""Colours of a brand, made readable: what stands on them, and what of them can stand on a surface (WCAG 2.2, 1.4.3)."""

from __future__ import annotations

import re

import msgspec

_HEX = re.compile(r"#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})")
_READABLE = 4.5
_STEPS = 40
_LINEAR_BELOW = 0.04045


class Colour(msgspec.Struct, frozen=True):
    red: int
    green: int
    blue: int

    def __str__(self) -> str:
        return f"#{self.red:02x}{self.green:02x}{self.blue:02x}"

    @property
    def luminance(self) -> float:
        return 0.2126 * _linear(self.red) + 0.7152 * _linear(self.green) + 0.0722 * _linear(self.blue)

    def contrast(self, other: Colour) -> float:
        lighter, darker = sorted((self.luminance, other.luminance), reverse=True)
        return (lighter + 0.05) / (darker + 0.05)

    def towards(self, other: Colour, share: float) -> Colour:
        return Colour(
            round(self.red + (other.red - self.red) * share),
            round(self.green + (other.green - self.green) * share),
            round(self.blue + (other.blue - self.blue) * share),
        )


WHITE = Colour(255, 255, 255)
BLACK = Colour(0, 0, 0)
INK = Colour(22, 28, 36)


def parse(text: str, otherwise: Colour) -> Colour:
    """`#rgb` or `#rrggbb`; anything else, which could be an attempt to write CSS of one's own, is `otherwise`."""
    if not _HEX.fullmatch(text):
        return otherwise
    digits = text[1:]
    if len(digits) == len("rgb"):
        digits = "".join(digit * 2 for digit in digits)
    return Colour(int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16))


def text_on(background: Colour) -> Colour:
    """White where it can be read, which looks right on most brands' colours, else as soft a black as can be."""
    return next(colour for colour in (WHITE, INK, BLACK) if colour.contrast(background) >= _READABLE)


def readable_on(colour: Colour, surface: Colour) -> Colour:
    """The colour itself, or as little darker (lighter on a dark surface) as makes text in it readable there."""
    goal = BLACK if surface.contrast(BLACK) > surface.contrast(WHITE) else WHITE
    for step in range(_STEPS):
        candidate = colour.towards(goal, step / _STEPS)
        if candidate.contrast(surface) >= _READABLE:
            return candidate
    return goal


def _linear(channel: int) -> float:
    value = channel / 255
    return value / 12.92 if value <= _LINEAR_BELOW else ((value + 0.055) / 1.055) ** 2.4
