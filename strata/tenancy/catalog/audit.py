"""What staff and the platform did, written in the transaction that did it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strata.platform.ids import new_id
from strata.tenancy.audit.origin import SYSTEM, current_origin
from strata.tenancy.catalog.tables import AuditRow

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["SYSTEM", "entry", "record"]


def record(
    session: AsyncSession,
    actor: str,
    action: str,
    subject: str,
    *,
    tenant_id: UUID | None = None,
    detail: dict[str, object] | None = None,
) -> None:
    """Add an audit row to the session's transaction. `action` reads noun.verb: tenant.create."""
    session.add(AuditRow(**entry(actor, action, subject, tenant_id=tenant_id, detail=detail)))


def entry(
    actor: str, action: str, subject: str, *, tenant_id: UUID | None = None, detail: dict[str, object] | None = None
) -> dict[str, Any]:
    """The columns of an audit row, for whoever writes it in a statement of their own."""
    origin = current_origin()
    return {
        "id": new_id(),
        "actor": actor,
        "action": action,
        "subject": subject,
        "tenant_id": tenant_id,
        "detail": detail or {},
        "source": origin.source,
        "authentication": origin.authentication,
        "request": origin.request,
    }
