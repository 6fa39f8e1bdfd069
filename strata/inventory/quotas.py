"""Limits of a plan, exact under races: a counter row that rises and falls in the transaction that makes the thing.

What counts is what is in use: active products and active bins. Making one or activating it takes one, deactivating or
deleting gives it back. Storage is measured instead (storage.py). The counter is always touched last in a transaction, after the rows it counts, so that two
writers who meet on a row and on the counter cannot wait for each other.
"""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.orm import Mapped

from strata.platform.errors import ForbiddenError
from strata.tenancy.scoping import TenantModel
from strata.tenancy.session import TenantReadSession, TenantSession

MB = 1_000_000


class Quota(StrEnum):
    SKUS = "skus"
    LOCATIONS = "locations"
    STORAGE = "storage_bytes"


class QuotaCounter(TenantModel):
    __tablename__ = "quota"

    name: Mapped[str]
    used: Mapped[int]


class QuotaExceededError(ForbiddenError):
    code = "quota-exceeded"
    title = "Limit of the plan reached"

    def __init__(self, quota: Quota, *, limit: int, used: int) -> None:
        super().__init__(
            f"Your plan allows {limit} {quota} and {used} are in use; deactivate some, or move to a larger plan.",
            extra={"quota": quota, "limit": limit, "used": used},
        )
        self.quota = quota
        self.limit = limit
        self.used = used


_TAKE = text(
    """
    INSERT INTO quota AS q (tenant_id, name, used) VALUES (:tenant, :name, :amount)
    ON CONFLICT (tenant_id, name) DO UPDATE SET used = q.used + excluded.used
    WHERE CAST(:limit AS bigint) IS NULL OR q.used + excluded.used <= :limit
    RETURNING q.used
    """
)
_LOCK = text(
    """
    INSERT INTO quota AS q (tenant_id, name, used) VALUES (:tenant, :name, 0)
    ON CONFLICT (tenant_id, name) DO UPDATE SET used = q.used
    RETURNING q.used
    """
)
# greatest(): a counter can only be too low if somebody wrote past it, and that must not stop a deletion.
_ADD = text("UPDATE quota SET used = greatest(used + :amount, 0) WHERE tenant_id = :tenant AND name = :name")
_SET = text("UPDATE quota SET used = :amount WHERE tenant_id = :tenant AND name = :name")
_USED = text("SELECT used FROM quota WHERE tenant_id = :tenant AND name = :name")


async def take(session: TenantSession, quota: Quota, limit: int | None, amount: int = 1) -> None:
    """Count `amount` more, or raise QuotaExceededError; `limit` None: unlimited, counted all the same."""
    of = _of(session, quota)
    used = await session.scalar(_TAKE, {**of, "amount": amount, "limit": limit})
    if used is None or (limit is not None and used > limit):
        before = used - amount if used is not None else await session.scalar(_USED, of)
        raise QuotaExceededError(quota, limit=limit or 0, used=before or 0)


async def take_up_to(session: TenantSession, quota: Quota, limit: int | None, amount: int) -> int:
    """Count as many of `amount` as the limit leaves; returns how many those are."""
    used = await locked(session, quota)
    granted = amount if limit is None else max(min(amount, limit - used), 0)
    if granted:
        await session.execute(_ADD, {**_of(session, quota), "amount": granted})
    return granted


async def locked(session: TenantSession, quota: Quota) -> int:
    """What is counted; nobody else counts until the transaction ends."""
    return await session.scalar(_LOCK, _of(session, quota)) or 0


async def measured(session: TenantSession, quota: Quota, amount: int) -> None:
    """In place of what was counted."""
    await locked(session, quota)
    await session.execute(_SET, {**_of(session, quota), "amount": amount})


async def give_back(session: TenantSession, quota: Quota, amount: int = 1) -> None:
    await session.execute(_ADD, {**_of(session, quota), "amount": -amount})


async def in_use(session: TenantReadSession) -> dict[str, int]:
    """By the plan's name for the limit; what was never counted is left out."""
    rows = await session.execute(select(QuotaCounter.name, QuotaCounter.used))
    used = {row.name: row.used for row in rows}
    if (stored := used.pop(Quota.STORAGE, None)) is not None:
        used["storage_mb"] = -(-stored // MB)
    return used


def _of(session: TenantSession, quota: Quota) -> dict[str, UUID | str | int | None]:
    return {"tenant": session.info["tenant_id"], "name": quota.value}
