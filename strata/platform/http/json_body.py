"""A request's body as JSON, whichever of JSON's media types it was sent as."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request

from strata.platform.errors import BadRequestError

_LONGEST_BODY = 256 * 1024


class NotJsonError(BadRequestError):
    code = "not-json"
    title = "Not JSON"

    def __init__(self) -> None:
        super().__init__(f"Send a JSON document of at most {_LONGEST_BODY // 1024} KB.")


async def json_of(request: Request[Any, Any, Any]) -> object:
    body = await request.body()
    try:
        if len(body) > _LONGEST_BODY:
            raise NotJsonError
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJsonError from error
