"""Versions of things as entity tags (RFC 9110, sections 8.8.3 and 13): If-Match against lost updates, If-None-Match."""

from __future__ import annotations

import hashlib
import re

from strata.platform.errors import StrataError

_TAG = re.compile(r'(W/)?"([^"]*)"')


class PreconditionFailedError(StrataError):
    code = "precondition-failed"
    status = 412
    title = "Changed meanwhile"

    def __init__(self, current: str) -> None:
        super().__init__(
            "Somebody has changed this since you read it; read it again, and repeat your change with the new ETag.",
            extra={"etag": current},
            headers={"ETag": current},
        )


def etag(version: int) -> str:
    return f'"v{version}"'


def check_if_match(header: str | None, version: int) -> None:
    """Raise PreconditionFailedError unless the header, when there is one, names this version.

    The comparison is the strong one: a weak tag matches nothing.
    """
    current = etag(version)
    if header is None or header.strip() == "*":
        return
    if not any(not weak and f'"{value}"' == current for weak, value in _TAG.findall(header)):
        raise PreconditionFailedError(current)


def content_etag(body: bytes) -> str:
    """For what has no version of its own. A weak one: the same content, whatever a proxy does to its bytes."""
    return f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def is_unchanged(header: str | None, current: str) -> bool:
    """Whether If-None-Match says that the client has what `current` tags (304). The comparison is the weak one."""
    if header is None:
        return False
    return header.strip() == "*" or any(f'"{value}"' == current.removeprefix("W/") for _, value in _TAG.findall(header))
