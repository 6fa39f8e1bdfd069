"""Every failure leaves as a problem document (RFC 9457): what happened, its stable code, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap, Scope, Send

from strata.platform.database.availability import is_unreachable
from strata.platform.errors import InvalidInputError, StrataError, UnavailableError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
_BODY = "body"
_WHAT_TO_DO = {
    400: "The request could not be understood; see the API's description at /api/v1/docs.",
    401: "Sign in, or send a valid access token.",
    403: "Ask an administrator of your organisation for access.",
    404: "There is nothing at this address; check it.",
    405: "This address does not take that method; the Allow header names those it takes.",
    413: "The request's body is larger than this address accepts; send less at a time.",
    415: "The body's media type is not accepted here; send application/json.",
    429: "Too many requests; wait as long as Retry-After says.",
}
# Litestar says which parameter is missing in its sentence alone.
_MISSING = re.compile(r"Missing required (\w+) parameter '([^']+)'")
_UNEXPECTED = "Something went wrong on our side. Try again; if it persists, tell support this request's id."


class Problem(msgspec.Struct, frozen=True):
    status: int
    code: str
    title: str
    detail: str
    extra: dict[str, Any] = {}
    headers: dict[str, str] = {}

    def document(self, request_id: str | None) -> bytes:
        body = {
            "type": f"urn:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        # The standard members win: an error's extra must not be able to change the status that is reported.
        return msgspec.json.encode({**self.extra, **body, "request_id": request_id}, enc_hook=str)


class Page(msgspec.Struct, frozen=True):
    """A problem as a browser is told of it; it may send the visitor elsewhere, to sign in for one."""

    status: int
    body: bytes
    headers: dict[str, str] = {}


ErrorPage = Callable[[Problem, Scope], Page | None]
"""Renders a problem for a browser, or declines with None; the pages' own templates are plugged in by composition."""


def problem_of(error: Exception) -> Problem:
    match error:
        case StrataError():
            known = error
        case ValidationException():
            known = _invalid(error)
        case HTTPException():
            return _http_problem(error)
        case _ if is_unreachable(error):
            known = UnavailableError("A database does not answer; try again shortly.")
        case _:
            return Problem(500, StrataError.code, StrataError.title, _UNEXPECTED)
    # What went wrong inside is for the log; the sentence of a server error may name hosts and files.
    detail = (
        known.detail if known.status < HTTPStatus.INTERNAL_SERVER_ERROR or _meant_for_clients(known) else _UNEXPECTED
    )
    extra = known.extra if detail is known.detail else {}
    return Problem(known.status, known.code, known.title, detail, extra, known.headers)


def log_problem(error: Exception, problem: Problem) -> None:
    if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return
    if isinstance(error, UnavailableError) or is_unreachable(error):
        log.warning("request.unavailable", code=problem.code, error=f"{type(error).__name__}: {error}")
    else:
        log.error("request.failed", code=problem.code, exc_info=error)


class ProblemResponses:
    """Turns errors into responses, for Litestar's handlers and for the ASGI layers around it alike."""

    def __init__(self, error_page: ErrorPage | None = None) -> None:
        self._error_page = error_page

    @property
    def exception_handlers(self) -> ExceptionHandlersMap:
        return {HTTPException: self.handle, StrataError: self.handle, Exception: self.handle}

    def handle(self, request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        status, media_type, headers, body = self._rendered(error, request.scope)
        return Response(body, status_code=status, headers=headers, media_type=media_type)

    async def send(self, error: Exception, scope: Scope, send: Send) -> None:
        status, media_type, headers, body = self._rendered(error, scope)
        # Litestar's own responses add the charset to text by themselves.
        charset = "; charset=utf-8" if media_type.startswith("text/") else ""
        raw = [(b"content-type", f"{media_type}{charset}".encode()), (b"content-length", str(len(body)).encode())]
        raw += [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _rendered(self, error: Exception, scope: Scope) -> tuple[int, str, dict[str, str], bytes]:
        problem = problem_of(error)
        log_problem(error, problem)
        headers = {"Cache-Control": "no-store", **problem.headers}
        if self._error_page is not None and _wants_page(scope):
            page = self._error_page(problem, scope)
            if page is not None:
                return page.status, "text/html", {**headers, **page.headers}, page.body
        return problem.status, MEDIA_TYPE, headers, problem.document(scope.get("state", {}).get("request_id"))


def _wants_page(scope: Scope) -> bool:
    if scope["type"] != ScopeType.HTTP:
        return False
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])


def _meant_for_clients(error: StrataError) -> bool:
    return isinstance(error, UnavailableError)


def _http_problem(error: HTTPException) -> Problem:
    status = HTTPStatus(error.status_code)
    title = status.phrase
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        detail = _UNEXPECTED
    elif status is HTTPStatus.BAD_REQUEST:
        detail = f"{_sentence(error.detail)} {_WHAT_TO_DO[400]}" if error.detail else _WHAT_TO_DO[400]
    else:
        # Litestar's own words for the rest repeat the title, and sometimes the address with its query.
        detail = _WHAT_TO_DO.get(status, f"{title}; see the API's description at /api/v1/docs.")
    code = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return Problem(int(status), code, title, detail, {}, dict(error.headers or {}))


def _invalid(error: ValidationException) -> InvalidInputError:
    found = error.extra if isinstance(error.extra, list) else []
    errors = [_located(item) for item in found if isinstance(item, dict)]
    if missing := _MISSING.match(error.detail):
        source, name = missing.groups()
        errors.append({"path": f"/{name}", "message": "is required", "in": source})
    places = ", ".join(f"{item['path'] or 'the body'}: {item['message']}" for item in errors[:3])
    detail = f"Mend and send again: {places}." if places else "A value is not acceptable; see the API's description."
    return InvalidInputError(detail, extra={"errors": errors})


def _located(item: dict[str, Any]) -> dict[str, str]:
    """Litestar's `lines[0].quantity` as a JSON pointer; for anything but the body, `in` says where to look."""
    source = str(getattr(item.get("source"), "value", None) or _BODY)
    key = str(item.get("key", ""))
    # «data» is what handlers call the whole body, whose pointer is empty (RFC 6901).
    steps = [] if source == _BODY and key == "data" else [step for step in re.split(r"[.\[\]]+", key) if step]
    located = {
        "path": "".join(f"/{step}" for step in steps),
        "message": _worded(str(item.get("message", "not acceptable"))),
    }
    return located if source == _BODY else {**located, "in": source}


def _worded(message: str) -> str:
    """msgspec's words, but for those that only a programmer understands."""
    if message == "'data'":
        return "there is none; send a JSON document"
    if "matching regex" in message:
        return "has characters that are not accepted here, such as control characters or space at either end"
    return message


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
