"""Takes secrets out of what is logged or reported: by the key they stand under, and by what they look like."""

from __future__ import annotations

import re
from collections.abc import Mapping

SCRUBBED = "[scrubbed]"
DEEPEST = 8

# At the end of a key, so that access_token and accessToken are met and token_id is not. Personal data too (O1).
SECRET_KEY = re.compile(
    r"(?i)(?:password|passwd|pwd|secrets?|tokens?|authorization|cookie|dsn|database_url|redis_url|capability|"
    r"api[_-]?key|private[_-]?key|signing[_-]?key|credentials?|(?:^|[_\-.])(?:seal|e-?mail|phone|mobile))$"
)

PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # scheme://user:password@host; the user may be empty (Redis). The password may hold a raw "@": the last one counts.
    (re.compile(r"([a-z][a-z0-9+.\-]*://[^\s:/@]*):[^\s/]+@", re.IGNORECASE), rf"\1:{SCRUBBED}@"),
    # libpq's keyword form, and its URI parameters.
    (
        re.compile(r"\b(password|passwd|passfile|sslpassword)\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&;,]+)", re.IGNORECASE),
        rf"\1={SCRUBBED}",
    ),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/\-]+=*", re.IGNORECASE), rf"\1 {SCRUBBED}"),
    # A JSON Web Token: three base64url parts, of which the first two begin with {" .
    (re.compile(r"\beyJ[A-Za-z0-9_\-]+\.eyJ[A-Za-z0-9_\-]*\.[A-Za-z0-9_\-]*"), SCRUBBED),
    # strata.enter…(tenant, epoch, capability, …) in SQL text, to the end of the statement: arguments may be calls.
    (re.compile(r"\b(strata\.enter\w*\s*\()[^;]*", re.IGNORECASE), rf"\1{SCRUBBED})"),
    # A capability or a seal by itself: 32 bytes in PostgreSQL's notation.
    (re.compile(r"\\+x[0-9a-f]{64}\b", re.IGNORECASE), SCRUBBED),
    # What SQLAlchemy appends to its errors unless the engine hides parameters.
    (re.compile(r"\[parameters: .*\]"), f"[parameters: {SCRUBBED}]"),
    (re.compile(r"(set_config\s*\(\s*'strata\.[^']*'\s*,)[^)]*\)", re.IGNORECASE), rf"\1 {SCRUBBED})"),
    # JSON and repr of mappings that were made into text before they came here.
    (
        re.compile(
            r"""(["'])([\w\-]*(?:password|secret|token|authorization|capability|api_?key|dsn))\1\s*:\s*b?(["'])(?:\\.|(?!\3).)*\3""",
            re.IGNORECASE,
        ),
        rf"\1\2\1: \3{SCRUBBED}\3",
    ),
)


def scrub_text(text: str) -> str:
    for pattern, replacement in PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def is_secret_key(key: str) -> bool:
    return SECRET_KEY.search(key) is not None


def scrub(value: object, depth: int = 0) -> object:
    """A copy without secrets. Mappings and sequences are followed; anything else a log would print is made text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth >= DEEPEST:
        return "[too deep]"
    match value:
        case Mapping():
            return {str(key): scrub_item(str(key), item, depth + 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [scrub(item, depth + 1) for item in value]
        case bytes() | bytearray() | memoryview():
            return f"[{len(value)} bytes]"
        case _:
            return scrub_text(str(value))


def scrub_item(key: str, value: object, depth: int = 0) -> object:
    if value is not None and not isinstance(value, bool) and is_secret_key(key):
        return SCRUBBED
    return scrub(value, depth)
