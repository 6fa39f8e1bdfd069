"""What a queued run has still to post, batch by batch, each with all that it takes: nothing reads the file again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from uuid import UUID

import msgspec
from sqlalchemy import LargeBinary, bindparam, delete, func, select, text

from strata.inventory.custom.values import Value
from strata.inventory.imports.batches import Batch, batches
from strata.inventory.imports.errors import FileChangedError
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.mapping import Mapping
from strata.inventory.imports.models import ImportBatch, Phase
from strata.inventory.imports.records import CsvRecords
from strata.inventory.imports.repository import Position
from strata.inventory.imports.rows import Interpreter
from strata.inventory.imports.survey import Survey
from strata.inventory.settings import CustomFields
from strata.tenancy.session import TenantReadSession, TenantSession

Needed = list[tuple[str, int]]


class PlannedBatch(msgspec.Struct, frozen=True):
    before: Position
    after: Position
    names: dict[str, str]
    """Of the products in it, where the file names them."""
    custom: dict[str, dict[str, Value]] = {}
    """Of the products in it, where the file gives any."""
    columns: tuple[str, ...] = ()
    rows: Batch | None = None
    needed: Needed = []
    """Opening stock: products, and how many of each there must be."""
    begins_at: datetime | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(PlannedBatch).decode


class Plan(msgspec.Struct, frozen=True):
    """The rest of a run from a position on."""

    file: SourceFile
    mapping: Mapping
    surveyed: Survey
    fields: CustomFields
    position: Position
    batch_rows: int

    def batches(self) -> Iterator[bytes]:
        """Encoded. Reads the file, so it is for a thread. Errors: FileChangedError."""
        checkpoint = self.position.checkpoint
        if self.position.phase is Phase.OPENING:
            yield from self._opening(checkpoint)
            checkpoint = 0
        yield from self._rows(checkpoint)

    def _opening(self, checkpoint: int) -> Iterator[bytes]:
        needed = self.surveyed.needed()
        before = Position(Phase.OPENING, checkpoint)
        for start in range(checkpoint, len(needed), self.batch_rows):
            part = needed[start : start + self.batch_rows]
            after = Position(Phase.OPENING, start + len(part))
            skus = [sku for sku, _ in part]
            begins_at = self.surveyed.begins_at
            yield _encode(
                PlannedBatch(before, after, self._names(skus), self._custom(skus), needed=part, begins_at=begins_at)
            )
            before = after
        yield _encode(PlannedBatch(before, Position(Phase.ROWS, 0), {}))

    def _rows(self, checkpoint: int) -> Iterator[bytes]:
        with self.file.open(self.mapping.document.file.encoding) as (content, digest):
            records = CsvRecords(content, self.mapping, self.file.name)
            interpreter = Interpreter(self.mapping, records.columns, self.fields)
            before = Position(Phase.ROWS, checkpoint)
            for batch in batches(islice(records, checkpoint, None), interpreter, self.batch_rows):
                after = Position(Phase.ROWS, before.checkpoint + batch.rows)
                skus = list(dict.fromkeys(line.sku for group in batch.groups for line in group.lines))
                yield _encode(
                    PlannedBatch(before, after, self._names(skus), self._custom(skus), records.columns, batch)
                )
                before = after
        if digest.value() != self.surveyed.digest:
            raise FileChangedError(self.file.name)

    def _names(self, skus: Sequence[str]) -> dict[str, str]:
        return {sku: name for sku in skus if (name := self.surveyed.name(sku)) != sku}

    def _custom(self, skus: Sequence[str]) -> dict[str, dict[str, Value]]:
        return {sku: custom for sku in skus if (custom := self.surveyed.custom(sku))}


_ADD = text(
    "INSERT INTO import_batch (tenant_id, run_id, number, content) VALUES (:tenant, :run, :number, :content)"
).bindparams(bindparam("content", type_=LargeBinary))


async def add(session: TenantSession, run_id: UUID, number: int, contents: Sequence[bytes]) -> int:
    """Behind the `number` that there are; returns how many there are then."""
    tenant = session.info["tenant_id"]
    rows = [
        {"tenant": tenant, "run": run_id, "number": each, "content": content}
        for each, content in enumerate(contents, number)
    ]
    if rows:
        await session.execute(_ADD, rows)
    return number + len(rows)


async def count(session: TenantReadSession, run_id: UUID) -> int:
    return await session.scalar(select(func.count()).where(ImportBatch.run_id == run_id)) or 0


async def first_left(session: TenantReadSession, run_id: UUID) -> int | None:
    """The number of the batch that is to be posted next; None: none is left."""
    return await session.scalar(select(func.min(ImportBatch.number)).where(ImportBatch.run_id == run_id))


async def take(session: TenantSession, run_id: UUID, number: int) -> PlannedBatch:
    """Of a run that this transaction has locked; the batch is gone if and only if the transaction commits."""
    content = await session.scalar(
        delete(ImportBatch)
        .where(ImportBatch.run_id == run_id, ImportBatch.number == number)
        .returning(ImportBatch.content)
        .execution_options(synchronize_session=False)
    )
    return _decode(content or b"")


async def drop(session: TenantSession, run_id: UUID) -> None:
    await session.execute(delete(ImportBatch).where(ImportBatch.run_id == run_id))
