"""Versions of things as entity tags (RFC 9110, sections 8.8.3 and 13): If-Match against lost updates, If-None-Match."""

from __future__ import annotations

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


def is_unchanged(header: str | None, version: int) -> bool:
    """Whether If-None-Match says that the client has this version already (304)."""
    if header is None:
        return False
    return header.strip() == "*" or any(f'"{value}"' == etag(version) for _, value in _TAG.findall(header))
