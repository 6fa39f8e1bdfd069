"""How far a consumer has come, in the tenant's own tables: the mark moves with the tenant, and with its effect."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text

from strata.tenancy.events.types import Place
from strata.tenancy.session import TenantSession

# An INSERT that meets the row locks it; one that does not makes it, so that two first deliveries take turns too.
_HOLD = text(
    """
    INSERT INTO event_mark AS m (tenant_id, consumer, epoch, position, event_id)
    VALUES (:tenant, :consumer, 0, 0, '00000000-0000-0000-0000-000000000000')
    ON CONFLICT (tenant_id, consumer) DO UPDATE SET consumer = m.consumer
    RETURNING m.epoch, m.position
    """
)
_ADVANCE = text(
    """
    UPDATE event_mark SET epoch = :epoch, position = :position, event_id = :event_id, updated_at = now()
    WHERE tenant_id = :tenant AND consumer = :consumer
    """
)


async def hold(session: TenantSession, consumer: str) -> Place:
    """Where the consumer stands; nobody else raises it before this transaction ends."""
    row = (await session.execute(_HOLD, {"tenant": session.info["tenant_id"], "consumer": consumer})).one()
    return Place(row.epoch, row.position)


async def advance(session: TenantSession, consumer: str, place: Place, event_id: UUID) -> None:
    """Raise a mark that this transaction holds."""
    await session.execute(
        _ADVANCE,
        {
            "tenant": session.info["tenant_id"],
            "consumer": consumer,
            "epoch": place.epoch,
            "position": place.position,
            "event_id": event_id,
        },
    )
