"""X-Request-ID: the client's when it is harmless to repeat in logs and headers, else one of ours."""

from __future__ import annotations

import re

from strata.platform.ids import new_id

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def request_id(offered: bytes | None) -> str:
    if offered is not None and _SANE.fullmatch(offered):
        return offered.decode("ascii")
    return new_id().hex
