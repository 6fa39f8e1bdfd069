"""What pages and API of the staff have in common: reading a page of tenants, changing a tenant's status with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from strata.platform.errors import InvalidInputError
from strata.platform.paging import Page, Paging, decode_cursor, encode_cursor
from strata.platform.tokens import Claims
from strata.tenancy.catalog.tenants import SettingCondition, TenantDirectory, TenantSummary
from strata.tenancy.model import TenantStatus

_LONGEST_REASON = 500

Reason = Annotated[str, msgspec.Meta(max_length=_LONGEST_REASON)]


class StatusChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    status: TenantStatus
    reason: Reason | None = None
    """Shown to the tenant's people; needed for everything but active."""


def actor(claims: Claims) -> str:
    """How the audit names somebody of the staff."""
    return f"staff:{claims.sub}"


class TenantFilter(msgspec.Struct, frozen=True):
    search: str | None = None
    status: TenantStatus | None = None
    where: Sequence[SettingCondition] = ()
    """All of them; set, or so by default."""


async def tenants_page(directory: TenantDirectory, paging: Paging, wanted: TenantFilter) -> Page[TenantSummary]:
    after = None if paging.cursor is None else str(decode_cursor(paging.cursor, [str])[0])
    found = await directory.find(
        search=wanted.search, status=wanted.status, after=after, limit=paging.limit + 1, where=wanted.where
    )
    shown = found[: paging.limit]
    more = len(found) > paging.limit
    return Page(shown, encode_cursor([shown[-1].slug]) if more else None)


async def change_status(directory: TenantDirectory, slug: str, change: StatusChange, claims: Claims) -> TenantSummary:
    reason = (change.reason or "").strip()
    if not reason and change.status is not TenantStatus.ACTIVE:
        detail = "Say why: the tenant's people are shown the reason."
        raise InvalidInputError(detail, extra={"errors": [{"path": "/reason", "message": detail}]})
    return await directory.set_status(slug, change.status, reason or None, actor(claims))
