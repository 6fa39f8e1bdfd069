"""The protocol of an import:

1. survey  read the whole file once; what cannot be read to its end is refused before anything is written
2. claim   find the run by file, mapping and options, or begin it
3. opening receive what each product needs, where that was asked for
4. rows    batch by batch: products, movements, refusals and the checkpoint in one transaction each
5. finish

Killed anywhere, the next start does 1 and 2 again and goes on at the checkpoint.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TypeVar

import msgspec

from strata.inventory.imports import repository
from strata.inventory.imports.ahead import ahead
from strata.inventory.imports.batches import batches
from strata.inventory.imports.custom_columns import check_custom, opening_values
from strata.inventory.imports.errors import FileChangedError, ImportRunningError
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.home import ensure_bin
from strata.inventory.imports.mapping import Mapping
from strata.inventory.imports.models import ImportState, Phase
from strata.inventory.imports.poster import Poster, Step
from strata.inventory.imports.records import CsvRecords
from strata.inventory.imports.repository import Claim, Position, RunKey
from strata.inventory.imports.rows import Interpreter
from strata.inventory.imports.schemas import FoldedOut, ImportOptions, ImportSummary, RunOptions, RunOut
from strata.inventory.imports.survey import Survey, survey
from strata.inventory.settings import custom_fields_in
from strata.platform.errors import StrataError, UnavailableError
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import ConcurrentUpdateError
from strata.tenancy.session import Tenants, TenantSession

BATCH_ROWS = 4000
_TRIES = 5
_FIRST_PAUSE_S = 0.2

T = TypeVar("T")


class Progress(msgspec.Struct, frozen=True):
    phase: str
    rows: int
    """Settled so far; in phase `opening`, products."""
    of: int
    accepted: int
    refused: int


Listener = Callable[[Progress], None]


class ImportRunner:
    def __init__(
        self,
        tenants: Tenants,
        context: TenantContext,
        *,
        batch_rows: int = BATCH_ROWS,
        lease_s: float = repository.LEASE_S,
    ) -> None:
        self._tenants = tenants
        self._context = context
        self._batch_rows = batch_rows
        self._lease_s = lease_s

    async def run(
        self,
        file: SourceFile,
        mapping: Mapping,
        options: ImportOptions,
        *,
        actor: str,
        again: bool = False,
        listener: Listener = lambda _: None,
    ) -> ImportSummary:
        """Import the file, or what is left of it. Errors: those of errors.py, and what stands before the tenant."""
        started = time.monotonic()
        fields = custom_fields_in(self._context)
        check_custom(mapping, fields, opening_stock=options.opening_stock)
        surveyed = await asyncio.to_thread(survey, file, mapping, fields)
        key = RunKey(
            surveyed.digest,
            mapping.name,
            RunOptions(opening_stock=options.opening_stock, mapping_digest=mapping.digest),
        )
        begun = await self._claim(key, file.name, actor, surveyed, again=again, listener=listener)
        run = begun
        if begun.state is not ImportState.DONE:
            task = _Task(self._tenants, self._context, begun, file, mapping, surveyed, actor, listener)
            run = await task.perform(self._batch_rows)
        async with self._tenants.reading(self._context) as session:
            refused_by_code = await repository.count_refusals(session, run.id)
        return ImportSummary(
            run=run,
            rows=surveyed.rows,
            rows_before=begun.rows_read,
            nothing_to_do=begun.state is ImportState.DONE,
            refused_by_code=refused_by_code,
            folded=[FoldedOut(each.sku, each.spellings) for each in surveyed.folded()],
            seconds=round(time.monotonic() - started, 3),
        )

    async def _claim(
        self, key: RunKey, file_name: str, actor: str, surveyed: Survey, *, again: bool, listener: Listener
    ) -> RunOut:
        seen: RunOut | None = None
        while True:
            claim = await self._try_claim(key, file_name, actor, surveyed.rows, again=again)
            run = claim.run
            if not claim.wait_s:
                return run
            if seen is not None and (run.phase, run.checkpoint) != (seen.phase, seen.checkpoint):
                raise ImportRunningError(run.id)
            seen = run
            listener(Progress("waiting", run.rows_read, surveyed.rows, run.lines_accepted, run.lines_refused))
            await asyncio.sleep(claim.wait_s)

    async def _try_claim(self, key: RunKey, file_name: str, actor: str, rows: int, *, again: bool) -> Claim:
        async with self._tenants.transaction(self._context) as session:
            return await repository.claim(
                session,
                key,
                file_name=file_name,
                rows=rows,
                actor=actor,
                lease=timedelta(seconds=self._lease_s),
                again=again,
            )


class _Task:
    """One start of one run, from its claim to its end."""

    def __init__(
        self,
        tenants: Tenants,
        context: TenantContext,
        run: RunOut,
        file: SourceFile,
        mapping: Mapping,
        surveyed: Survey,
        actor: str,
        listener: Listener,
    ) -> None:
        self._tenants = tenants
        self._context = context
        self._run = run
        self._file = file
        self._mapping = mapping
        self._survey = surveyed
        self._listener = listener
        self._fields = custom_fields_in(context)
        self._poster = Poster(
            mapping.document.movement,
            surveyed.name,
            surveyed.custom,
            opening=opening_values(mapping, self._fields),
            begins_at=surveyed.begins_at,
            actor=actor,
            sku_limit=context.limits.skus,
        )

    async def perform(self, batch_rows: int) -> RunOut:
        try:
            await self._make_home()
            if self._run.phase is Phase.OPENING:
                await self._open(batch_rows)
            await self._read_rows(batch_rows)
            async with self._tenants.transaction(self._context) as session:
                await repository.hold(session, self._run.id, self._position)
                return await repository.finish(session, self._run.id)
        except ImportRunningError:
            raise
        except StrataError as error:
            await self._record_failure(error)
            raise

    @property
    def _position(self) -> Position:
        return Position(self._run.phase, self._run.checkpoint)

    async def _make_home(self) -> None:
        async with self._tenants.transaction(self._context) as session:
            await ensure_bin(session, self._mapping.document.movement, location_limit=self._context.limits.locations)

    async def _open(self, batch_rows: int) -> None:
        needed = self._survey.needed()
        for start in range(self._run.checkpoint, len(needed), batch_rows):
            part = needed[start : start + batch_rows]
            end = start + len(part)
            step = partial(self._poster.open, needed=part, reference=self._file.name)
            await self._settle(Position(Phase.OPENING, end), step)
            self._listener(Progress(Phase.OPENING, end, len(needed), 0, 0))
        await self._settle(Position(Phase.ROWS, 0), _nothing)

    async def _read_rows(self, batch_rows: int) -> None:
        with self._file.open(self._mapping.document.file.encoding) as (text, digest):
            records = CsvRecords(text, self._mapping, self._file.name)
            interpreter = Interpreter(self._mapping, records.columns, self._fields)
            rest = islice(records, self._run.checkpoint, None)
            async with aclosing(ahead(batches(rest, interpreter, batch_rows))) as ready:
                async for batch in ready:
                    self._file.check_unchanged()
                    step = partial(self._poster.post, batch=batch, interpreter=interpreter)
                    await self._settle(Position(Phase.ROWS, self._run.checkpoint + batch.rows), step)
                    run = self._run
                    progress = Progress(
                        Phase.ROWS, run.rows_read, self._survey.rows, run.lines_accepted, run.lines_refused
                    )
                    self._listener(progress)
        if digest.value() != self._survey.digest:
            raise FileChangedError(self._file.name)

    async def _settle(self, to: Position, step: Callable[[TenantSession], Awaitable[Step]]) -> None:
        """One transaction: the step's writes and the checkpoint behind them. Tried again while that can help."""
        pause_s = _FIRST_PAUSE_S
        for tries_left in reversed(range(_TRIES)):
            try:
                await self._try_settle(to, step)
            except (ConcurrentUpdateError, UnavailableError):
                if not tries_left:
                    raise
                await asyncio.sleep(pause_s)
                pause_s *= 2
            else:
                return

    async def _try_settle(self, to: Position, step: Callable[[TenantSession], Awaitable[Step]]) -> None:
        async with self._tenants.transaction(self._context) as session:
            run = await repository.run_by_id(session, self._run.id)
            done = Step()
            # Already there: the last try was committed, and only the answer was lost.
            if Position(run.phase, run.checkpoint) != to:
                await repository.hold(session, self._run.id, self._position)
                done = await step(session)
                await repository.add_refusals(session, self._run.id, done.refusals)
                run = await repository.advance(session, self._run.id, to, done.gain)
        self._run = run
        self._poster.remember(done)

    async def _record_failure(self, error: StrataError) -> None:
        with suppress(StrataError):
            async with self._tenants.transaction(self._context) as session:
                await repository.hold(session, self._run.id, self._position)
                await repository.fail(session, self._run.id, error.detail)


async def _nothing(_: TenantSession) -> Step:
    return Step()
