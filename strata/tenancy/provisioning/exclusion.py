"""Who is changing what: a move, an upgrade and a removal never work on the same thing at once.

Claims are rows of the catalog, made in the caller's transaction, so that a move is registered and its claims are made
or neither is. What is claimed is a tenant or a schema of a cell: an upgrade claims schemas alone, which is why a move
claims, beside its tenant, the schema it comes from and the one it goes to. Two moves may share a schema (many tenants
leave `shared` side by side), not a tenant.

A claim of a move or a removal stands until it is released, whoever dies: its work is recorded too, and is taken up
again. An upgrade's is worth as much as its process: it holds the lease `UPGRADE_LEASE`, and claims that it left behind
when that lease is free are swept away by whoever meets them.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, NewType
from uuid import UUID

import msgspec
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from strata.platform.database.lease import is_leased
from strata.platform.errors import ConflictError
from strata.tenancy.catalog.tables import ClaimRow
from strata.tenancy.model import Holder

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

UPGRADE_LEASE = "upgrade"
_TURN = 7529
"""Of the advisory lock under which claims are compared and set."""

Subject = NewType("Subject", str)


class SubjectKind(StrEnum):
    TENANT = "tenant"
    SCHEMA = "schema"


def tenant_subject(tenant_id: UUID) -> Subject:
    return Subject(f"{SubjectKind.TENANT} {tenant_id}")


def schema_subject(cell: str, schema: str) -> Subject:
    return Subject(f"{SubjectKind.SCHEMA} {cell} {schema}")


class Claim(msgspec.Struct, frozen=True):
    subject: Subject
    holder: Holder
    reference: str
    """Which move, upgrade or removal."""
    since: datetime

    def __str__(self) -> str:
        return f"{self.holder} {self.reference}, since {self.since:%Y-%m-%d %H:%M:%S %Z}"


class TenantBusyError(ConflictError):
    code = "claimed"
    title = "Something else is changing this"

    def __init__(self, held: Claim) -> None:
        super().__init__(
            f"The {held.subject} is held by {held}; try again when it is done.",
            extra={"subject": held.subject, "holder": held.holder, "reference": held.reference},
        )
        self.held = held


async def claim(
    work: AsyncConnection | AsyncSession, holder: Holder, reference: str, subjects: Collection[Subject]
) -> None:
    """All of them, or none and TenantBusyError. Claiming what one has changes nothing."""
    for held in (await _held_by_others(work, holder, reference, subjects)).values():
        raise TenantBusyError(held)
    await _hold(work, holder, reference, subjects)


async def claim_free(
    work: AsyncConnection | AsyncSession, holder: Holder, reference: str, subjects: Collection[Subject]
) -> dict[Subject, Claim]:
    """Claim those that nobody else holds; returns who holds the others."""
    held = await _held_by_others(work, holder, reference, subjects)
    await _hold(work, holder, reference, [subject for subject in subjects if subject not in held])
    return held


async def _held_by_others(
    work: AsyncConnection | AsyncSession, holder: Holder, reference: str, subjects: Collection[Subject]
) -> dict[Subject, Claim]:
    # Until the caller's transaction ends: what is compared now must still be so when it is set.
    await work.execute(select(func.pg_advisory_xact_lock(_TURN)))
    met = [
        each
        for each in await claims(work, subjects)
        if each.holder is not holder or (each.reference != reference and each.subject.startswith(SubjectKind.TENANT))
    ]
    if any(each.holder is Holder.UPGRADE for each in met) and not await is_leased(work, UPGRADE_LEASE):
        await work.execute(delete(ClaimRow).where(ClaimRow.holder == Holder.UPGRADE))
        met = [each for each in met if each.holder is not Holder.UPGRADE]
    return {each.subject: each for each in met}


async def _hold(
    work: AsyncConnection | AsyncSession, holder: Holder, reference: str, subjects: Collection[Subject]
) -> None:
    if rows := [{"subject": subject, "holder": holder, "reference": reference} for subject in subjects]:
        await work.execute(insert(ClaimRow).values(rows).on_conflict_do_nothing())


async def release(
    work: AsyncConnection | AsyncSession,
    holder: Holder,
    reference: str,
    subjects: Collection[Subject] | None = None,
) -> None:
    """Give back these, or all that `reference` holds."""
    query = delete(ClaimRow).where(ClaimRow.holder == holder, ClaimRow.reference == reference)
    if subjects is not None:
        query = query.where(ClaimRow.subject.in_(subjects))
    await work.execute(query)


async def claims(work: AsyncConnection | AsyncSession, subjects: Collection[Subject]) -> list[Claim]:
    """Who holds what of these, an upgrade that has died included."""
    rows = await work.execute(
        select(ClaimRow.subject, ClaimRow.holder, ClaimRow.reference, ClaimRow.claimed_at)
        .where(ClaimRow.subject.in_(subjects))
        .order_by(ClaimRow.subject)
    )
    return [Claim(Subject(subject), Holder(holder), reference, since) for subject, holder, reference, since in rows]
