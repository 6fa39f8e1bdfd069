"""Access tokens for people and programs of a tenant, and for the platform's staff."""

from __future__ import annotations

from uuid import UUID

from strata.identity.roles import Role, permissions_of
from strata.platform.errors import InvalidInputError
from strata.platform.tokens import Audience, TokenAuthority


def tenant_token(
    authority: TokenAuthority, tenant_id: UUID, role: Role, *, subject: str, lifetime_s: int | None = None
) -> str:
    if role is Role.STAFF:
        detail = "«staff» is no role of a tenant; choose one of the tenant's roles."
        raise InvalidInputError(detail, extra={"errors": [{"path": "/role", "message": detail}]})
    return authority.issue(
        subject=subject, tenant=tenant_id, role=role, permissions=permissions_of(role), lifetime_s=lifetime_s
    )


def staff_token(authority: TokenAuthority, *, subject: str, lifetime_s: int | None = None) -> str:
    return authority.issue(
        subject=subject,
        tenant=None,
        role=Role.STAFF,
        permissions=permissions_of(Role.STAFF),
        audience=Audience.STAFF,
        lifetime_s=lifetime_s,
    )
