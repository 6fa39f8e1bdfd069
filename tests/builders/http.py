"""Requests to an application in this process, as any host, with a token of any role."""

from __future__ import annotations

from typing import Any

import httpx
from litestar.types import ASGIApp

from strata.identity.roles import Role
from strata.identity.tokens import staff_token, tenant_token
from strata.platform.tokens import TokenAuthority
from strata.tenancy.context import TenantContext


def client_of(app: ASGIApp, host: str, *, token: str | None = None, peer: str = "127.0.0.1") -> httpx.AsyncClient:
    """A client that says `Host: <host>`; `peer` is the address the application sees it come from."""
    headers = {"Host": host}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    transport = httpx.ASGITransport(app=app, client=(peer, 50_000))  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://in-process", headers=headers)


def token_for(
    authority: TokenAuthority,
    context: TenantContext,
    role: Role = Role.ADMINISTRATOR,
    **options: Any,  # noqa: ANN401
) -> str:
    return tenant_token(authority, context.id, role, subject="tester", **options)


def token_for_staff(authority: TokenAuthority) -> str:
    return staff_token(authority, subject="staff@tests")
