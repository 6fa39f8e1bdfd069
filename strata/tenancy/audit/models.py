from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import FetchedValue, LargeBinary, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.scoping import TenantModel


class AuditEntryRow(TenantModel):
    """Written by `record` alone; number, time, predecessor and digest are the database's (strata.chain_audit)."""

    __tablename__ = "audit_entry"

    sequence: Mapped[int] = mapped_column(server_default=FetchedValue())
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    source: Mapped[str | None]
    authentication: Mapped[str | None]
    request: Mapped[str | None]
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    previous: Mapped[bytes] = mapped_column(LargeBinary, server_default=FetchedValue())
    digest: Mapped[bytes] = mapped_column(LargeBinary, server_default=FetchedValue())
