from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from strata.inventory.imports.models import ImportState, Phase


class ImportOptions(msgspec.Struct, frozen=True):
    opening_stock: bool = False
    """Receive, before the first row, what each product needs so that none of the file's movements is ever short."""


class RunOptions(ImportOptions, frozen=True):
    """As a run is known by."""

    mapping_digest: str = ""


class RunOut(msgspec.Struct, frozen=True):
    """An import as far as it has come. All numbers are of what is committed."""

    id: UUID
    file_name: str
    mapping: str
    options: RunOptions
    state: ImportState
    phase: Phase
    checkpoint: int
    rows_total: int | None
    """Rows in the file; null until it has been read to its end."""
    rows_read: int
    """Of them, those whose outcome is committed: lines_accepted + lines_refused."""
    lines_accepted: int
    lines_refused: int
    products_created: int
    movements_posted: int
    """Those of opening stock included."""
    quantity_sum: int
    """What the accepted rows did to the stock, in units; negative: more went than came."""
    opening_sum: int
    """Units received as opening stock."""
    queued: bool
    """Workers do it; false: the process that began it."""
    failure: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime
    expected_at: datetime | None
    """When it will be done at the pace so far; null when that cannot be said."""
    finished_at: datetime | None


class FoldedOut(msgspec.Struct, frozen=True):
    """Codes of the file that differ in writing only and became one product."""

    sku: str
    spellings: tuple[str, ...]


class ImportSummary(msgspec.Struct, frozen=True):
    run: RunOut
    rows: int
    """Rows in the file."""
    rows_before: int
    """Of them, settled by an earlier start of the same run."""
    nothing_to_do: bool
    """The run was finished before; nothing was written now."""
    refused_by_code: dict[str, int]
    folded: list[FoldedOut]
    seconds: float


class RefusalOut(msgspec.Struct, frozen=True):
    line: int
    """Of the file, the line with the columns' names being 1."""
    code: str
    message: str
    source: dict[str, str]
    """The row by columns, or {"text": …} when it could not be split into them."""


class UploadKey(msgspec.Struct, frozen=True):
    """What makes an upload the same request as an earlier one."""

    file_digest: str
    mapping: str
    options: RunOptions
    again: bool
    file_name: str
