"""Who is asking, and for which tenant: token claim first, then custom domain, then subdomain; on api.<base> the claim alone.

Token and host must agree wherever the host says anything: a session replayed on another tenant's address is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import msgspec

from strata.platform.tokens import Audience, Claims, InvalidTokenError, TokenAuthority
from strata.routing.errors import CrossSiteRequestError, TokenHostMismatchError
from strata.routing.host import HostKind, Hosts, ResolvedHost
from strata.tenancy.context import TenantContext
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.context_loader import NameKind
from strata.tenancy.errors import TenantClosingError, TenantSuspendedError, UnknownTenantError
from strata.tenancy.model import TenantStatus

SESSION_COOKIE = "strata_session"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_COOKIE_START = f"{SESSION_COOKIE}=".encode()
_OWN_PAGES = (b"same-origin", b"none")
_WITHOUT_TENANT = frozenset({HostKind.API, HostKind.CONSOLE, HostKind.BASE})


class Resolution(msgspec.Struct, frozen=True):
    host: ResolvedHost
    claims: Claims | None
    context: TenantContext | None


class RequestHeaders:
    """The few headers that decide about identity, picked in one pass; lists where a second one would be an attack."""

    __slots__ = ("authorization", "cookies", "fetch_site", "forwarded_host", "host", "origin")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.host: list[bytes] = []
        self.forwarded_host: list[bytes] = []
        self.authorization: list[bytes] = []
        self.cookies: list[bytes] = []
        self.origin: bytes | None = None
        self.fetch_site: bytes | None = None
        for name, value in headers:
            match name:
                case b"host":
                    self.host.append(value)
                case b"authorization":
                    self.authorization.append(value)
                case b"cookie":
                    self.cookies.append(value)
                case b"x-forwarded-host":
                    self.forwarded_host.append(value)
                case b"origin":
                    self.origin = value
                case b"sec-fetch-site":
                    self.fetch_site = value


class Resolver:
    def __init__(self, hosts: Hosts, contexts: ContextCache, tokens: TokenAuthority) -> None:
        self.hosts = hosts
        self._contexts = contexts
        self._tokens = tokens

    async def resolve(
        self, method: str, raw_headers: Iterable[tuple[bytes, bytes]], client: tuple[str, int] | None
    ) -> Resolution:
        headers = RequestHeaders(raw_headers)
        named_by = headers.host
        if headers.forwarded_host and self.hosts.trusts(client):
            named_by = headers.forwarded_host
        host = self.hosts.resolve(named_by)
        if host.kind is HostKind.NOBODY:
            raise UnknownTenantError(host.name)
        claims = await self._claims(headers, method, named_by[0])
        if claims is not None and (claims.aud is Audience.STAFF) != (host.kind is HostKind.CONSOLE):
            raise TokenHostMismatchError
        context = await self._context(host, claims)
        return Resolution(host, claims, context)

    async def _claims(self, headers: RequestHeaders, method: str, host: bytes) -> Claims | None:
        if headers.authorization:
            token = _bearer(headers.authorization)
            return self._tokens.verified(token) or await self._tokens.verify(token)
        if headers.cookies:
            return await self._session(headers, method, host)
        return None

    async def _session(self, headers: RequestHeaders, method: str, host: bytes) -> Claims | None:
        token = _session_cookie(headers.cookies)
        if token is None:
            return None
        try:
            claims = self._tokens.verified(token) or await self._tokens.verify(token)
        except InvalidTokenError:
            # A session that has run out is nobody's fault: the visitor is a stranger again, and may sign in.
            return None
        # The browser sends cookies along by itself, so a change must be seen to come from this very origin.
        if method not in SAFE_METHODS and not from_own_pages(headers, host):
            raise CrossSiteRequestError
        return claims

    async def _context(self, host: ResolvedHost, claims: Claims | None) -> TenantContext | None:
        tenant_id = None if claims is None else claims.tenant
        if host.kind in _WITHOUT_TENANT:
            if host.kind is HostKind.API and tenant_id is not None:
                return await self._by_id(tenant_id)
            return None
        kind, name = (NameKind.SLUG, host.slug) if host.slug is not None else (NameKind.DOMAIN, host.name)
        if tenant_id is None:
            held = self._contexts.peek_name(kind, name)
            if held is not None and held.context is not None:
                return held.context
            return await self._contexts.get_by_name(kind, name)
        held = self._contexts.peek(tenant_id)
        if held is not None and held.answers_to(kind, name):
            return held.context
        # They disagree, or what is held here is too old to know of a new name: the host's own tenant decides.
        context = await self._contexts.get_by_name(kind, name)
        if context.id != tenant_id:
            raise TokenHostMismatchError
        return context

    async def _by_id(self, tenant_id: UUID) -> TenantContext:
        held = self._contexts.peek(tenant_id)
        if held is not None and held.context is not None:
            return held.context
        return await self._contexts.get_by_id(tenant_id)


def refuse_closed(context: TenantContext) -> None:
    match context.status:
        case TenantStatus.SUSPENDED:
            raise TenantSuspendedError(context.id, context.status_reason)
        case TenantStatus.CLOSING:
            raise TenantClosingError(context.id)
        case TenantStatus.PROVISIONING | TenantStatus.CLOSED:
            raise UnknownTenantError(context.slug)
        case _:
            pass


def _bearer(values: list[bytes]) -> bytes:
    scheme, _, token = values[0].partition(b" ")
    if len(values) != 1 or scheme.lower() != b"bearer" or not token.strip():
        reason = "not one Authorization header with a bearer token"
        raise InvalidTokenError(reason)
    return token.strip()


def _session_cookie(cookies: list[bytes]) -> bytes | None:
    found = [
        part[len(_COOKIE_START) :]
        for header in cookies
        for part in header.replace(b" ", b"").split(b";")
        if part.startswith(_COOKIE_START)
    ]
    # Two of one name: a sibling address has planted one for the whole base domain, and which is whose cannot be known.
    return found[0] if len(found) == 1 else None


def from_own_pages(headers: RequestHeaders, host: bytes) -> bool:
    if headers.fetch_site is not None:
        return headers.fetch_site in _OWN_PAGES
    if headers.origin is None:
        return False
    return headers.origin.partition(b"://")[2].lower() == host.lower()
