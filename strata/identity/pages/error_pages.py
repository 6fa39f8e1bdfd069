"""Problems as a person in a browser is told of them, in the look of whose address it is."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from litestar.types import Scope

from strata.identity.pages.frame import staff_frame, tenant_frame
from strata.identity.pages.rendering import PAGES
from strata.identity.pages.session import SIGN_IN, expired_cookie
from strata.platform.http.problems import Page, Problem
from strata.platform.web.pages import Frame, page_headers
from strata.platform.web.policy import new_nonce
from strata.routing.errors import TokenHostMismatchError
from strata.routing.host import HostKind

_TITLES = {
    "tenant-suspended": "Account suspended",
    "tenant-closing": "Account closing",
    "tenant-read-only": "Read-only",
    "unknown-tenant": "Nobody at this address",
}
"""Where the API's words are not those of the people who see a page."""
_PROGRAMS = ("/api/", "/staff/v1/", "/.well-known/")
"""What only programs ask for; a browser that shows one of these gets the problem document too."""


class ErrorPages:
    """The `ErrorPage` that composition hands to the problem responses."""

    def __init__(self, *, https: bool) -> None:
        self._https = https

    def __call__(self, problem: Problem, scope: Scope) -> Page | None:
        path = str(scope["path"])
        if path.startswith(_PROGRAMS):
            return None
        part = _header(scope, b"hx-request") == b"true"
        if problem.status == HTTPStatus.UNAUTHORIZED and not part:
            return Page(HTTPStatus.SEE_OTHER, b"", {"Location": f"{SIGN_IN}?next={quote(_next(scope), safe='/')}"})
        state: dict[str, Any] = scope.get("state", {})
        frame = _frame(state)
        nonce = new_nonce()
        headers = page_headers(nonce, frame.look)
        template = "identity/problem.html"
        if part:
            # What was typed stays as it is; the message goes above it.
            template = "identity/problem_part.html"
            headers |= {"HX-Retarget": "#messages", "HX-Reswap": "innerHTML show:top"}
        if problem.code == TokenHostMismatchError.code:
            # Nothing at all answers to such a cookie, signing out neither: without this a browser would be stuck with it.
            headers["Set-Cookie"] = expired_cookie(secure=self._https).to_header(header="")
        body = PAGES.markup(
            template,
            frame,
            path,
            nonce,
            problem=problem,
            title=_TITLES.get(problem.code, problem.title),
            request_id=state.get("request_id", ""),
            again=path if str(scope.get("method")) == "GET" else None,
            sign_in=problem.status == HTTPStatus.UNAUTHORIZED or problem.code == TokenHostMismatchError.code,
        )
        return Page(problem.status, body.encode(), headers)


def _frame(state: dict[str, Any]) -> Frame:
    host = state.get("host")
    if host is not None and host.kind is HostKind.CONSOLE:
        return staff_frame()
    return tenant_frame(state.get("context"))


def _next(scope: Scope) -> str:
    if str(scope.get("method")) != "GET":
        return "/"
    query = bytes(scope["query_string"]).decode("ascii", "replace")
    path = quote(str(scope["path"]), safe="/~:@!$&'()*+,;=")
    return f"{path}?{query}" if query else path


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((bytes(value) for name, value in scope["headers"] if name == wanted), None)
