"""What a promoted standby's fences say, held against the catalog: a comparison that asks nobody anything."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from uuid import UUID

import msgspec

from strata.tenancy.model import FenceState, Holder, TenantStatus


class Fence(msgspec.Struct, frozen=True):
    """A row of the cell's."""

    epoch: int
    state: FenceState
    schema_name: str


class Known(msgspec.Struct, frozen=True):
    """A tenant as the catalog has it."""

    id: UUID
    slug: str
    status: TenantStatus
    cell: str | None
    """Where it lives; None: nowhere any more."""
    schema_name: str | None
    epoch: int
    counted_to: int
    """The newest event of this epoch that the catalog has counted, by its position; 0: none."""
    audited_to: int
    """The newest entry of its audit that the catalog has an anchor of; 0: none."""


class Standing(StrEnum):
    """How a tenant stands in a cell that was failed over."""

    SERVED = "served"
    """As the catalog says."""
    REOPENED = "reopened"
    """It lives here, and the standby had not heard that its fence was opened again."""
    SHUT = "shut"
    """The standby had not heard that it has left."""
    LEFT_BEHIND = "left behind"
    """It has left or was deleted, and is shut out already; what it left is back."""
    LOST = "lost"
    """It lives here, and the standby has not heard of its arrival: nobody is let in."""
    MOVING = "moving"
    """Left to its move."""
    SWEPT = "swept"
    """Half made or half deleted: left to the sweep, which ends it, whatever is here."""


class Finding(msgspec.Struct, frozen=True):
    tenant_id: UUID
    slug: str
    cell: str
    standing: Standing
    sentence: str
    """What it means and what to do; empty when there is nothing to do."""
    was: Fence | None = None
    becomes: Fence | None = None
    """The row that is to be written; None: it stays as it is."""
    clear: bool = False
    """What stands here of it may be removed, once it is known to be let in where it lives."""


def compare(
    cell: str, tenants: Mapping[UUID, Known], fences: Mapping[UUID, Fence], claims: Mapping[UUID, tuple[Holder, str]]
) -> list[Finding]:
    """One finding for every tenant that lives here by the catalog or has a fence here, by slug."""
    here = {known.id for known in tenants.values() if known.cell == cell}
    found = []
    for tenant_id in here | set(fences):
        known, fence, claim = tenants.get(tenant_id), fences.get(tenant_id), claims.get(tenant_id)
        if known is None:
            assert fence is not None  # noqa: S101 - whoever has neither is not looked at
            found.append(_unknown(tenant_id, cell, fence))
        elif known.cell == cell:
            found.append(_resident(known, cell, fence, claim))
        else:
            assert fence is not None  # noqa: S101 - as above
            found.append(_gone(known, cell, fence, claim))
    return sorted(found, key=lambda finding: (finding.slug, finding.tenant_id))


def _unknown(tenant_id: UUID, cell: str, fence: Fence) -> Finding:
    """The catalog has never heard of it: nothing of it is deleted on such a word."""
    sentence = (
        f"The catalog knows no tenant {tenant_id}, which has a home in {cell}: it is kept shut. If the catalog was restored "
        "from an older state, mend that first."
    )
    return Finding(tenant_id, str(tenant_id), cell, Standing.SHUT, sentence, fence, _shut(fence))


def _resident(known: Known, cell: str, fence: Fence | None, claim: tuple[Holder, str] | None) -> Finding:
    def finding(standing: Standing, sentence: str = "", becomes: Fence | None = None) -> Finding:
        return Finding(known.id, known.slug, cell, standing, sentence, fence, becomes)

    if known.status in {TenantStatus.PROVISIONING, TenantStatus.CLOSING}:
        return finding(Standing.SWEPT)
    moved_by = claim[1] if claim is not None and claim[0] is Holder.MOVE else None
    if fence is None or fence.epoch < known.epoch:
        becomes = None if fence is None else _shut(fence)
        return finding(Standing.LOST, _lost(known, cell, fence, moved_by), becomes)
    as_it_should = Fence(known.epoch, FenceState.ACTIVE, known.schema_name or "")
    if fence == as_it_should:
        return finding(Standing.SERVED)
    if moved_by is not None:
        return finding(Standing.MOVING, f"Its move {moved_by} opens it: a worker goes on with that by itself.")
    return finding(Standing.REOPENED, becomes=as_it_should)


def _gone(known: Known, cell: str, fence: Fence, claim: tuple[Holder, str] | None) -> Finding:
    claimed = claim is not None
    # At an epoch beyond the catalog's nobody comes in, and the move's own flip may be the next thing that happens.
    shut = None if claimed and fence.epoch > known.epoch else _shut(fence)
    if claimed:
        standing = Standing.MOVING if shut is None else Standing.SHUT
        return Finding(known.id, known.slug, cell, standing, "", fence, shut)
    where = f"lives in {known.cell} by now" if known.cell else "was deleted"
    sentence = f"«{known.slug}» {where}: what this server still has of it in {cell} is removed."
    standing = Standing.LEFT_BEHIND if shut is None else Standing.SHUT
    return Finding(known.id, known.slug, cell, standing, sentence, fence, shut, clear=True)


def _lost(known: Known, cell: str, fence: Fence | None, move: str | None) -> str:
    has = "nothing of it"
    if fence is not None:
        has = f"it only as of epoch {fence.epoch} («{fence.schema_name}», which is kept), before it came to live as it does"
    said = f"«{known.slug}» lives in {cell} at epoch {known.epoch}, of which this server has not heard: it has {has}. "
    if move is not None:
        return f"{said}It stays shut out; its move {move} keeps the other home: strata migrate accept-loss {move} lets it live on there, once the move has failed."
    return (
        f"{said}It stays shut out. Restore it from the old primary or a backup and approve again, or give it up with strata "
        f"tenant delete {known.slug}."
    )


def _shut(fence: Fence) -> Fence | None:
    return None if fence.state is FenceState.MOVED else msgspec.structs.replace(fence, state=FenceState.MOVED)


class Behind(msgspec.Struct, frozen=True):
    """A tenant that is served, and whose data here is older than the catalog knows it to have been."""

    slug: str
    cell: str
    events: int
    """At least so many positions of the outbox are missing."""
    audit_entries: int

    @property
    def sentence(self) -> str:
        what = [
            f"{count} {name}"
            for count, name in ((self.events, "positions of its events"), (self.audit_entries, "entries of its audit"))
            if count
        ]
        return (
            f"«{self.slug}» is served from older data than it has worked with: {' and '.join(what)} that the catalog has "
            "heard of are missing here. What was written last is on the old primary alone: keep its disk, tell the tenant, and "
            "compare (strata audit, and what left as events)."
        )


def behind(known: Known, cell: str, position: int, audited: int) -> Behind | None:
    """`position`: the last that this server's outbox has given out; `audited`: entries of the tenant's audit here."""
    events, entries = max(known.counted_to - position, 0), max(known.audited_to - audited, 0)
    return Behind(known.slug, cell, events, entries) if events or entries else None
