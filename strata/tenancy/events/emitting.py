"""Telling that something has happened, in the transaction in which it does."""

from __future__ import annotations

import msgspec
from sqlalchemy import Integer, Text, bindparam, text

from strata.tenancy.events.types import Event
from strata.tenancy.session import TenantSession

_EMIT = text("SELECT strata.emit(:type, :version, CAST(:payload AS jsonb))").bindparams(
    bindparam("type", type_=Text), bindparam("version", type_=Integer), bindparam("payload", type_=Text)
)
_encode = msgspec.json.Encoder().encode


async def emit(session: TenantSession, event: Event) -> None:
    """Write the event to the outbox: delivered if and only if the session's transaction commits.

    Last in the transaction, when what it tells of is locked: that is what gives events of one thing their order.
    """
    await session.execute(
        _EMIT, {"type": event.kind.type, "version": event.kind.version, "payload": _encode(event).decode()}
    )
