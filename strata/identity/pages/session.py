"""Signing in by token and out again: the token itself becomes the session, in a cookie of this host alone."""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import urlsplit

from litestar import Request, Response, get, post
from litestar.datastructures import Cookie
from litestar.response import Redirect

from strata.identity.pages.frame import staff_frame, tenant_frame
from strata.identity.pages.rendering import PAGES
from strata.identity.permissions import public
from strata.platform.errors import NotFoundError
from strata.platform.settings import HttpSettings
from strata.platform.tokens import Audience, Claims, InvalidTokenError, TokenAuthority
from strata.platform.web.pages import Frame
from strata.routing.errors import CrossSiteRequestError
from strata.routing.host import HostKind, ResolvedHost
from strata.routing.resolve import SESSION_COOKIE, RequestHeaders, from_own_pages
from strata.tenancy.context import TenantContext

SIGN_IN = "/sign-in"
_START = "/"
_LONGEST_NEXT = 2000
_NOT_UNDERSTOOD = (
    "That is not an access token. Copy the whole of it, as it was printed or sent to you, and paste it again."
)
_EXPIRED = "This access token has expired. Ask for a new one and paste it here."
_ANOTHER_ACCOUNT = "This access token belongs to another account. Use the address of the account it was issued for."
_FOR_STAFF = "This access token is not for this address."
_WITHOUT_TOKENS = "Paste your access token first."


@get(SIGN_IN, opt=public(), include_in_schema=False)
async def sign_in_page(request: Request[Any, Any, Any]) -> Response[str]:
    """The token itself never comes in by GET: addresses end up in logs."""
    return _form(request, next_path=safe_path(request.query_params.get("next", "")))


@post(SIGN_IN, opt=public(), include_in_schema=False, status_code=303)
async def sign_in(
    request: Request[Any, Any, Any], tokens: TokenAuthority, http_settings: HttpSettings
) -> Response[Any]:
    _refuse_foreign_form(request)
    form = await request.form()
    next_path = safe_path(str(form.get("next", "")))
    token = re.sub(r"\s+", "", str(form.get("token", ""))).encode("ascii", "replace")
    if not token:
        return _form(request, next_path=next_path, problem=_WITHOUT_TOKENS, status=422)
    try:
        claims = await tokens.verify(token)
    except InvalidTokenError as error:
        said = _EXPIRED if error.reason == "expired" else _NOT_UNDERSTOOD
        return _form(request, next_path=next_path, problem=said, status=422)
    problem = _why_not_here(claims, *_address(request))
    if problem is not None:
        return _form(request, next_path=next_path, problem=problem, status=403)
    return Redirect(next_path, status_code=303, cookies=[_session_cookie(token, claims, http_settings)])


@post("/sign-out", opt=public(), include_in_schema=False, status_code=303)
async def sign_out(request: Request[Any, Any, Any], http_settings: HttpSettings) -> Redirect:
    _refuse_foreign_form(request)
    return Redirect(SIGN_IN, status_code=303, cookies=[expired_cookie(secure=_is_https(http_settings))])


def safe_path(wanted: str) -> str:
    """The address to go on to, when it is a path of this host; a link must not send people elsewhere after signing in."""
    # Browsers read backslashes as slashes and drop tabs and line ends, so anything unusual is not worth understanding.
    if len(wanted) > _LONGEST_NEXT or not re.fullmatch(r"/[\x21-\x5b\x5d-\x7e]*", wanted):
        return _START
    parts = urlsplit(wanted)
    if wanted.startswith("//") or parts.scheme or parts.netloc or parts.path in {SIGN_IN, "/sign-out"}:
        return _START
    return wanted


def expired_cookie(*, secure: bool) -> Cookie:
    return Cookie(SESSION_COOKIE, value="", max_age=0, path="/", httponly=True, samesite="lax", secure=secure)


def _session_cookie(token: bytes, claims: Claims, settings: HttpSettings) -> Cookie:
    # No domain: the cookie is this host's, no neighbour's. Lax, so that a link in a mail finds people signed in; changes
    # are held to their origin in routing.
    return Cookie(
        SESSION_COOKIE,
        value=token.decode("ascii"),
        max_age=max(claims.exp - int(time.time()), 0),
        path="/",
        httponly=True,
        samesite="lax",
        secure=_is_https(settings),
    )


def _is_https(settings: HttpSettings) -> bool:
    return settings.public_scheme == "https"


def _why_not_here(claims: Claims, host: ResolvedHost, context: TenantContext | None) -> str | None:
    if (claims.aud is Audience.STAFF) != (host.kind is HostKind.CONSOLE):
        return _FOR_STAFF
    if context is not None and claims.tenant != context.id:
        return _ANOTHER_ACCOUNT
    return None


def _refuse_foreign_form(request: Request[Any, Any, Any]) -> None:
    """Routing asks this of requests with a session; here there is none yet, and one of a stranger's must not be planted."""
    headers = RequestHeaders(request.scope["headers"])
    if not from_own_pages(headers, headers.host[0]):
        raise CrossSiteRequestError


def _address(request: Request[Any, Any, Any]) -> tuple[ResolvedHost, TenantContext | None]:
    state = request.scope["state"]
    return state["host"], state["context"]


def _form(
    request: Request[Any, Any, Any], *, next_path: str, problem: str | None = None, status: int = 200
) -> Response[str]:
    host, context = _address(request)
    if context is None and host.kind is not HostKind.CONSOLE:
        message = "There is nothing at this address; check it."
        raise NotFoundError(message)
    claims: Claims | None = request.scope["state"]["claims"]
    frame: Frame = tenant_frame(context) if context is not None else staff_frame()
    return PAGES.page(
        "identity/sign_in.html",
        request,
        frame,
        status,
        next_path=next_path,
        problem=problem,
        signed_in_as=None if claims is None else claims.sub,
        organisation=None if context is None else context.name,
    )
