"""The rows of imports. A run moves on by compare and set: whoever finds it elsewhere than expected has lost it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Float, Interval, Row, and_, bindparam, case, cast, func, select, text, update
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import InstrumentedAttribute

from strata.inventory.imports.errors import (
    ImportedOtherwiseError,
    ImportQueuedError,
    ImportRunningError,
    ImportUnknownError,
)
from strata.inventory.imports.mapping import Mapping, MappingDocument, mapping_of
from strata.inventory.imports.models import UNDER_WAY, ImportRefusal, ImportRun, ImportState, Phase
from strata.inventory.imports.refusals import Refusal
from strata.inventory.imports.schemas import RefusalOut, RunOptions, RunOut
from strata.platform.listing import Listing
from strata.platform.paging import AnySelect, Keyset, Page, Paging
from strata.tenancy.session import TenantReadSession, TenantSession

# As fast as since this start; the elapsed time is that of the rows since then.
_SETTLED = ImportRun.rows_read - ImportRun.rows_before
_TOOK_S = cast(func.extract("epoch", ImportRun.updated_at - ImportRun.started_at), Float)
_LEFT_S = _TOOK_S * (ImportRun.rows_total - ImportRun.rows_read) / _SETTLED
_EXPECTED_AT = case(
    (
        and_(ImportRun.state == ImportState.RUNNING, _SETTLED > 0),
        ImportRun.updated_at + func.make_interval(0, 0, 0, 0, 0, 0, _LEFT_S, type_=Interval),
    )
).label("expected_at")
_FORGOTTEN_AT_ONCE = 5000
_FORGET_REFUSALS = text(
    """
    WITH gone AS (
        DELETE FROM import_refusal WHERE tenant_id = :tenant AND id IN (
            SELECT f.id FROM import_refusal f JOIN import_run r ON r.tenant_id = f.tenant_id AND r.id = f.run_id
            WHERE f.tenant_id = :tenant AND r.finished_at < :before
            LIMIT :most)
        RETURNING 1
    )
    SELECT count(*) FROM gone
    """
)
_RUN: tuple[ColumnElement[Any] | InstrumentedAttribute[Any], ...] = (
    ImportRun.id,
    ImportRun.file_name,
    ImportRun.mapping,
    ImportRun.options,
    ImportRun.state,
    ImportRun.phase,
    ImportRun.checkpoint,
    ImportRun.rows_total,
    ImportRun.rows_read,
    ImportRun.lines_accepted,
    ImportRun.lines_refused,
    ImportRun.products_created,
    ImportRun.movements_posted,
    ImportRun.quantity_sum,
    ImportRun.opening_sum,
    ImportRun.queued,
    ImportRun.failure,
    ImportRun.created_by,
    ImportRun.created_at,
    ImportRun.updated_at,
    _EXPECTED_AT,
    ImportRun.finished_at,
)
_RUNS: AnySelect = select(*_RUN)
_REFUSALS: AnySelect = select(
    ImportRefusal.row_number.label("line"), ImportRefusal.code, ImportRefusal.message, ImportRefusal.source
)


LEASE_S = 5.0
"""How long a run that a process has marked as running and that does not move is left to it."""


class RunKey(msgspec.Struct, frozen=True):
    """What a run is known by, within its tenant."""

    file_digest: bytes
    mapping: str
    options: RunOptions


class Position(msgspec.Struct, frozen=True):
    phase: Phase
    checkpoint: int


class Claim(msgspec.Struct, frozen=True):
    run: RunOut
    wait_s: float = 0
    """Above 0: somebody else may be at it; ask again after so long, and if the run has not moved it is ours."""


class Gain(msgspec.Struct, frozen=True):
    """What one transaction adds to the run's numbers."""

    rows: int = 0
    accepted: int = 0
    refused: int = 0
    products: int = 0
    movements: int = 0
    quantity: int = 0
    opening: int = 0


async def claim(
    session: TenantSession, key: RunKey, *, file_name: str, rows: int, actor: str, lease: timedelta, again: bool
) -> Claim:
    """Find or begin the run and mark it as running, in this process."""
    run, left_s = await find_or_begin(session, key, file_name=file_name, actor=actor, lease=lease)
    if run.state is ImportState.DONE:
        return Claim(run)
    if run.queued and run.state in UNDER_WAY:
        raise ImportQueuedError(run.id)
    if run.state is ImportState.RUNNING and left_s > 0:
        return Claim(run, left_s)
    if not again:
        await refuse_second_posting(session, run.id, key.file_digest)
    return Claim(await start(session, run.id, rows=rows, queued=False))


async def find_or_begin(
    session: TenantSession, key: RunKey, *, file_name: str, actor: str, lease: timedelta
) -> tuple[RunOut, float]:
    """The run, locked, and for how many seconds it is left to a process that marked it as running.

    The row's lock makes a second starter wait for a transaction that a killed one has still under way.
    """
    options = msgspec.to_builtins(key.options)
    new = {
        "file_name": file_name,
        "file_digest": key.file_digest,
        "mapping": key.mapping,
        "options": options,
        "phase": Phase.OPENING if key.options.opening_stock else Phase.ROWS,
        "created_by": actor,
    }
    await session.execute(insert(ImportRun).on_conflict_do_nothing(), new)
    remaining = func.extract("epoch", ImportRun.updated_at + lease - func.clock_timestamp())
    row = (
        await session.execute(
            select(*_RUN, remaining)
            .where(
                ImportRun.file_digest == key.file_digest,
                ImportRun.mapping == key.mapping,
                ImportRun.options == options,
            )
            .with_for_update()
        )
    ).one()
    return _run(row[:-1]), float(row[-1])


async def start(session: TenantSession, run_id: UUID, *, rows: int, queued: bool) -> RunOut:
    """The file has been read to its end, and the first batch comes next."""
    return await change(
        session,
        run_id,
        state=ImportState.RUNNING,
        queued=queued,
        rows_total=rows,
        rows_before=ImportRun.rows_read,
        started_at=func.clock_timestamp(),
        failure=None,
        finished_at=None,
    )


async def locked(session: TenantSession, run_id: UUID) -> RunOut:
    row = (await session.execute(_RUNS.where(ImportRun.id == run_id).with_for_update())).one_or_none()
    if row is None:
        raise ImportUnknownError(run_id)
    return _run(row)


async def queued_mapping(session: TenantReadSession, run: RunOut) -> Mapping:
    """As it was when the run was queued."""
    document = await session.scalar(select(ImportRun.mapping_document).where(ImportRun.id == run.id))
    return mapping_of(run.mapping, msgspec.convert(document, MappingDocument))


async def refuse_second_posting(session: TenantSession, run_id: UUID, digest: bytes) -> None:
    other = (
        await session.execute(
            select(ImportRun.id, ImportRun.lines_accepted)
            .where(ImportRun.file_digest == digest, ImportRun.id != run_id, ImportRun.lines_accepted > 0)
            .limit(1)
        )
    ).one_or_none()
    if other is not None:
        raise ImportedOtherwiseError(other.id, other.lines_accepted)


async def hold(session: TenantSession, run_id: UUID, position: Position) -> None:
    """Lock the run where we left it for the rest of the transaction; ImportRunningError when somebody moved it."""
    held = await session.scalar(
        select(ImportRun.id)
        .where(
            ImportRun.id == run_id,
            ImportRun.state == ImportState.RUNNING,
            ImportRun.phase == position.phase,
            ImportRun.checkpoint == position.checkpoint,
        )
        .with_for_update()
    )
    if held is None:
        raise ImportRunningError(run_id)


async def advance(session: TenantSession, run_id: UUID, to: Position, gain: Gain) -> RunOut:
    """Of a run that this transaction holds."""
    return await change(
        session,
        run_id,
        phase=to.phase,
        checkpoint=to.checkpoint,
        rows_read=ImportRun.rows_read + gain.rows,
        lines_accepted=ImportRun.lines_accepted + gain.accepted,
        lines_refused=ImportRun.lines_refused + gain.refused,
        products_created=ImportRun.products_created + gain.products,
        movements_posted=ImportRun.movements_posted + gain.movements,
        quantity_sum=ImportRun.quantity_sum + gain.quantity,
        opening_sum=ImportRun.opening_sum + gain.opening,
    )


async def finish(session: TenantSession, run_id: UUID) -> RunOut:
    return await change(session, run_id, state=ImportState.DONE, finished_at=func.clock_timestamp())


async def fail(session: TenantSession, run_id: UUID, failure: str) -> RunOut:
    """To be started again: the checkpoint stays, and nobody needs to wait for a lease."""
    return await change(session, run_id, state=ImportState.FAILED, failure=failure)


async def change(session: TenantSession, run_id: UUID, **values: object) -> RunOut:
    statement = (
        update(ImportRun)
        .where(ImportRun.id == run_id)
        .values(**values, updated_at=func.clock_timestamp())
        .returning(*_RUN)
        .execution_options(synchronize_session=False)
    )
    return _run((await session.execute(statement)).one())


_TRANSACTIONS = text("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")


async def transactions_so_far(session: TenantReadSession) -> int:
    """All that the database has counted, whoever made them; a second behind, at times."""
    return int(await session.scalar(_TRANSACTIONS) or 0)


_ADD_REFUSALS = text(
    """
    INSERT INTO import_refusal (tenant_id, run_id, row_number, code, message, source)
    SELECT :tenant, :run, r.row_number, r.code, r.message, CAST(r.source AS jsonb)
    FROM unnest(CAST(:lines AS bigint[]), CAST(:codes AS text[]), CAST(:messages AS text[]), CAST(:sources AS text[]))
         AS r (row_number, code, message, source)
    """
).bindparams(bindparam("sources", type_=ARRAY(SqlText)))


async def add_refusals(session: TenantSession, run_id: UUID, refusals: Sequence[Refusal]) -> None:
    if not refusals:
        return
    await session.execute(
        _ADD_REFUSALS,
        {
            "tenant": session.info["tenant_id"],
            "run": run_id,
            "lines": [each.line for each in refusals],
            "codes": [each.code for each in refusals],
            "messages": [each.message for each in refusals],
            "sources": [msgspec.json.encode(each.source).decode() for each in refusals],
        },
    )


_ON_HAND = text(
    """
    SELECT p.sku, s.on_hand
    FROM unnest(CAST(:skus AS text[])) AS w (sku)
    JOIN product p ON p.tenant_id = :tenant AND p.sku = w.sku
    JOIN bin b ON b.tenant_id = :tenant AND b.code = :bin
    JOIN stock_balance s
      ON s.tenant_id = :tenant AND s.product_id = p.id AND s.bin_id = b.id AND s.batch = ''
    """
)


async def forget_refusals(session: TenantSession, before: datetime) -> bool:
    """Some of those of imports that ended before; False: there are no more."""
    gone = await session.scalar(
        _FORGET_REFUSALS, {"tenant": session.info["tenant_id"], "before": before, "most": _FORGOTTEN_AT_ONCE}
    )
    return bool(gone)


async def on_hand(session: TenantSession, skus: Sequence[str], bin_code: str) -> dict[str, int]:
    """What lies in the bin, of those that lie there."""
    parameters = {"tenant": session.info["tenant_id"], "skus": list(skus), "bin": bin_code}
    return {row.sku: row.on_hand for row in await session.execute(_ON_HAND, parameters)}


async def run_by_id(session: TenantReadSession, run_id: UUID) -> RunOut:
    run = await _RUN_LIST.one(session, ImportRun.id == run_id)
    if run is None:
        raise ImportUnknownError(run_id)
    return run


async def list_runs(session: TenantReadSession, paging: Paging) -> Page[RunOut]:
    """The newest first."""
    return await _RUN_LIST.page(session, paging)


async def list_refusals(
    session: TenantReadSession, run_id: UUID, paging: Paging, *, code: str | None = None
) -> Page[RefusalOut]:
    """In the order of the file."""
    conditions = [ImportRefusal.run_id == run_id]
    if code is not None:
        conditions.append(ImportRefusal.code == code)
    return await _REFUSAL_LIST.page(session, paging, *conditions)


async def count_refusals(session: TenantReadSession, run_id: UUID) -> dict[str, int]:
    """By code, the most frequent first."""
    statement = (
        select(ImportRefusal.code, func.count().label("refused"))
        .where(ImportRefusal.run_id == run_id)
        .group_by(ImportRefusal.code)
        .order_by(func.count().desc(), ImportRefusal.code)
    )
    return {row.code: row.refused for row in await session.execute(statement)}


def _run(row: Row[Any] | Sequence[Any]) -> RunOut:
    return msgspec.convert(dict(zip(RunOut.__struct_fields__, row, strict=True)), RunOut)


_RUN_LIST = Listing(RunOut, _RUNS, Keyset(ImportRun.id, descending=True), make=_run)
_REFUSAL_LIST = Listing(RefusalOut, _REFUSALS, Keyset(ImportRefusal.row_number))
