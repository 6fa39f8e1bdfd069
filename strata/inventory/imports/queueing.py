"""Taking a file in for workers, and what can be done with a run that is queued.

    pending    planned       -> running
    running    last batch    -> done
    either     trouble       -> failed
    either     cancel        -> cancelled
    failed     resume        -> pending or running
    cancelled  the same file -> pending

Every change is made on the locked row of the run, and a batch posts only while it holds that lock on a run that is
running: once a cancellation is answered, nothing more is posted.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import msgspec
from sqlalchemy import func

from strata.inventory.imports import kept_files, planning, repository
from strata.inventory.imports.custom_columns import check_custom
from strata.inventory.imports.errors import (
    ImportDoneError,
    ImportNotQueuedError,
    ImportNotResumableError,
    ImportRunningError,
)
from strata.inventory.imports.events import ImportQueued
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.mapping import Mapping
from strata.inventory.imports.models import OVER, UNDER_WAY, ImportState
from strata.inventory.imports.records import CsvRecords
from strata.inventory.imports.repository import RunKey
from strata.inventory.imports.schemas import ImportOptions, RunOptions, RunOut
from strata.inventory.settings import custom_fields_of
from strata.tenancy.audit import record
from strata.tenancy.entitlements.asking import Feature, need
from strata.tenancy.events.emitting import emit
from strata.tenancy.session import TenantSession

_BUFFER_CHARACTERS = 256 * 1024


class Order(msgspec.Struct, frozen=True):
    """A file that is to be imported, looked at."""

    file: SourceFile
    mapping: Mapping
    key: RunKey


async def look_at(file: SourceFile, mapping: Mapping, options: ImportOptions) -> Order:
    """Refuse at once what cannot be imported whatever is in its rows. Errors: FileUnreadableError and below."""
    try:
        digest = await asyncio.to_thread(_digest, file, mapping)
    except asyncio.CancelledError:
        file.give_up()
        raise
    asked = RunOptions(opening_stock=options.opening_stock, mapping_digest=mapping.digest)
    return Order(file, mapping, RunKey(digest, mapping.name, asked))


def _digest(file: SourceFile, mapping: Mapping) -> bytes:
    with file.open(mapping.document.file.encoding) as (content, digest):
        CsvRecords(content, mapping, file.name)  # reads the line with the columns' names, and judges it
        while content.read(_BUFFER_CHARACTERS):
            pass
        return digest.value()


async def accept(
    session: TenantSession, order: Order, *, actor: str, storage_limit_mb: int | None, again: bool = False
) -> RunOut:
    """Queue the file; one that is queued already, or done, is left as it is."""
    need(session.info["context"], Feature.IMPORT)
    lease = timedelta(seconds=repository.LEASE_S)
    run, left_s = await repository.find_or_begin(
        session, order.key, file_name=order.file.name, actor=actor, lease=lease
    )
    if run.state is ImportState.DONE or (run.queued and run.state in UNDER_WAY):
        return run
    if run.state is ImportState.RUNNING and left_s > 0:
        raise ImportRunningError(run.id)
    check_custom(order.mapping, custom_fields_of(session), opening_stock=order.key.options.opening_stock)
    if not again:
        await repository.refuse_second_posting(session, run.id, order.key.file_digest)
    await planning.drop(session, run.id)
    await kept_files.keep(session, run.id, order.file, storage_limit_mb)
    queued = await repository.change(
        session,
        run.id,
        state=ImportState.PENDING,
        queued=True,
        mapping_document=msgspec.to_builtins(order.mapping.document),
        failure=None,
        finished_at=None,
    )
    await emit(session, ImportQueued(run.id))
    record(session, "import.start", order.file.name, id=run.id, mapping=order.mapping.name)
    return queued


async def cancel(session: TenantSession, run_id: UUID) -> RunOut:
    """What is posted stays; no more will be. Cancelling twice is once."""
    run = await repository.locked(session, run_id)
    if run.state is ImportState.CANCELLED:
        return run
    if run.state is ImportState.DONE:
        raise ImportDoneError(run_id)
    if not run.queued:
        raise ImportNotQueuedError(run_id)
    await planning.drop(session, run_id)
    await kept_files.drop(session, run_id)
    record(session, "import.cancel", run.file_name, id=run_id)
    return await repository.change(session, run_id, state=ImportState.CANCELLED, finished_at=func.clock_timestamp())


async def resume(session: TenantSession, run_id: UUID) -> RunOut:
    """Go on with a failed run; its file or what is left of it is still here."""
    run = await repository.locked(session, run_id)
    if not run.queued or run.state in OVER:
        raise ImportNotResumableError(run_id)
    if run.state is ImportState.FAILED:
        # The file goes in the transaction that leaves the last of its batches.
        state = ImportState.PENDING if await kept_files.is_kept(session, run_id) else ImportState.RUNNING
        run = await repository.change(session, run_id, state=state, failure=None)
        record(session, "import.resume", run.file_name, id=run_id)
    # Also for a run that is under way: whatever became of its job, now there is one.
    await emit(session, ImportQueued(run_id))
    return run
