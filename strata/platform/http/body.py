"""Bodies as handlers get them: decoded from JSON strictly and once, straight into what the handler declares."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from litestar import Request
from litestar.enums import RequestEncodingType
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import Empty

from strata.platform.errors import BadRequestError

_FORMS = frozenset({RequestEncodingType.MULTI_PART.value, RequestEncodingType.URL_ENCODED.value})
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class MalformedBodyError(BadRequestError):
    code = "malformed-body"
    title = "Body is not JSON"

    def __init__(self, why: str) -> None:
        super().__init__(f"The body could not be read as JSON: {why}. Mend it and send it again.")


class StrictRequest(Request[Any, Any, Any]):
    """Litestar converts bodies as leniently as query strings («"1"» is 1), and lets some malformed ones fail as ours."""

    async def json(self) -> Any:  # noqa: ANN401 - as in Litestar
        if self._json is Empty:
            if self.content_type[0] in _FORMS:
                raise HTTPException(status_code=415)
            parameter = self.route_handler.parsed_fn_signature.parameters.get("data")
            self._json = _decoded(await self.body() or b"null", Any if parameter is None else parameter.annotation)
        return self._json


@cache
def _decoder(wanted: object) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(wanted)


def _decoded(body: bytes, wanted: object) -> Any:  # noqa: ANN401 - what the handler declares
    try:
        return _decoder(wanted).decode(body)
    except msgspec.ValidationError as error:
        # It stops at the first value that does not fit; what comes after may not be JSON at all.
        _check_readable(body)
        raise _not_acceptable(error) from error
    except _UNREADABLE as error:
        raise MalformedBodyError(_why(error)) from error


def _check_readable(body: bytes) -> None:
    try:
        msgspec.json.decode(body)
    except _UNREADABLE as error:
        raise MalformedBodyError(_why(error)) from error


def _why(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return "it is not UTF-8"
        case RecursionError():
            return "it is nested too deep"
        case _:
            return str(error)


def _not_acceptable(error: msgspec.ValidationError) -> ValidationException:
    message, _, place = str(error).partition(" - at `$")
    key = place.rstrip("`").removeprefix(".") or "data"
    return ValidationException(extra=[{"key": key, "message": message}])
