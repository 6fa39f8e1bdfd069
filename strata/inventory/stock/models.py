from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import func, text
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.scoping import TenantModel, Timestamped


class StockBalance(Timestamped, TenantModel):
    """What lies where. Written by the database function post_movements alone."""

    __tablename__ = "stock_balance"

    product_id: Mapped[UUID]
    bin_id: Mapped[UUID]
    batch: Mapped[str] = mapped_column(server_default="")
    expires_on: Mapped[date | None]
    on_hand: Mapped[int] = mapped_column(server_default=text("0"))
    sequence: Mapped[int] = mapped_column(server_default=text("0"))


class StockLedgerLine(TenantModel):
    """One change of one balance, for ever."""

    __tablename__ = "stock_ledger"

    movement_id: Mapped[UUID]
    balance_id: Mapped[UUID]
    product_id: Mapped[UUID]
    bin_id: Mapped[UUID]
    batch: Mapped[str]
    quantity: Mapped[int]
    on_hand_after: Mapped[int]
    sequence: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
