"""Who a request comes from, as the audit writes it down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strata.platform.tokens import Audience, Claims
from strata.tenancy.audit.origin import Origin

if TYPE_CHECKING:
    from litestar.types import Scope

    from strata.routing.host import Hosts

_ANONYMOUS = "anonymous"
_LONGEST_ADDRESS = 64


def origin_of(scope: Scope, hosts: Hosts) -> Origin:
    """Of a request that routing has resolved."""
    claims: Claims | None = scope["state"]["claims"]
    return Origin(
        _ANONYMOUS if claims is None else _actor(claims),
        _address(scope, hosts),
        None if claims is None else f"{_credential(scope)} {claims.jti}",
        scope["state"].get("request_id"),
    )


def _actor(claims: Claims) -> str:
    return f"staff:{claims.sub}" if claims.aud is Audience.STAFF else claims.sub


def _credential(scope: Scope) -> str:
    bearer = any(name == b"authorization" for name, _ in scope["headers"])
    return "token" if bearer else "session"


def _address(scope: Scope, hosts: Hosts) -> str | None:
    """The peer's; behind proxies that are trusted, the nearest address that is none of theirs (RFC 7239, section 7.4)."""
    client = scope.get("client")
    if client is None or not hosts.trusts(client):
        return None if client is None else client[0]
    address = client[0]
    for value in reversed([value for name, value in scope["headers"] if name == b"x-forwarded-for"]):
        for hop in reversed(value.decode("latin-1").split(",")):
            address = hop.strip()[:_LONGEST_ADDRESS] or address
            if not hosts.trusts((address, 0)):
                return address
    return address
