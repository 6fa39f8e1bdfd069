"""Restartable imports: the run with its checkpoint, and what was refused."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.scoping import TenantModel, Timestamped


class ImportState(StrEnum):
    PENDING = "pending"
    """Begun or uploaded; nobody is at it yet."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """Of itself; it may be started again, as may a cancelled one."""
    CANCELLED = "cancelled"


UNDER_WAY = (ImportState.PENDING, ImportState.RUNNING)
OVER = (ImportState.DONE, ImportState.CANCELLED)
"""These have a `finished_at`, which the table checks."""


class Phase(StrEnum):
    OPENING = "opening"
    """Receiving what must have been in stock before; the checkpoint counts products."""
    ROWS = "rows"
    """The checkpoint counts rows of the file."""


class ImportRun(Timestamped, TenantModel):
    """One load of one file through one mapping with some options; the file's digest finds it again after a death.

    `checkpoint` moves in the transaction that writes what it counts.
    """

    __tablename__ = "import_run"

    file_name: Mapped[str]
    file_digest: Mapped[bytes]
    mapping: Mapped[str]
    options: Mapped[dict[str, object]] = mapped_column(JSONB, default=dict, server_default=text("'{}'"))
    state: Mapped[str] = mapped_column(default=ImportState.PENDING, server_default=ImportState.PENDING)
    phase: Mapped[str] = mapped_column(default="", server_default="")
    checkpoint: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    rows_read: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    lines_accepted: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    lines_refused: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    products_created: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    movements_posted: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    quantity_sum: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Of the ledger lines that the accepted rows made, signed."""
    opening_sum: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Of the ledger lines that opening stock made."""
    queued: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    """Whether workers are to do it; else the process that began it does."""
    rows_total: Mapped[int | None]
    """Known once the file has been read to its end."""
    rows_before: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """Of `rows_read`, what an earlier start had settled."""
    started_at: Mapped[datetime | None]
    """When the first of the rows since then were begun."""
    mapping_document: Mapped[dict[str, object] | None] = mapped_column(JSONB)
    """As it was when the run was queued; workers need not have the file it came from."""
    failure: Mapped[str | None]
    created_by: Mapped[str]
    finished_at: Mapped[datetime | None]


class ImportChunk(TenantModel):
    """A piece of an uploaded file, until the run is planned."""

    __tablename__ = "import_chunk"

    run_id: Mapped[UUID]
    number: Mapped[int]
    content: Mapped[bytes]


class ImportBatch(TenantModel):
    """What one transaction of a queued run is to post. It is there until that is committed, and no longer."""

    __tablename__ = "import_batch"

    run_id: Mapped[UUID]
    number: Mapped[int]
    content: Mapped[bytes]


class ImportRefusal(TenantModel):
    """A row of the file that was not taken, as it was read."""

    __tablename__ = "import_refusal"

    run_id: Mapped[UUID]
    row_number: Mapped[int]
    """The line of the file at which it begins."""
    code: Mapped[str]
    message: Mapped[str]
    source: Mapped[dict[str, str]] = mapped_column(JSONB)
