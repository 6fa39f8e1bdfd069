"""Replays revisions in many schemas of many cells, with a bounded number of connections; a failure stays where it is."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import msgspec
import structlog

from strata.platform.database.connecting import ServerUnreachableError, connection
from strata.platform.database.failures import NO_ANSWER
from strata.tenancy.cell.schema_revisions import CONTROL_SCHEMA, LedgerLine, batch_script, revisions_of
from strata.tenancy.provisioning.upgrade_cells import CellAddress, Lag
from strata.tenancy.provisioning.upgrade_report import Outcome, OutcomeState

if TYPE_CHECKING:
    from strata.platform.database.revisions import RevisionChain
    from strata.platform.settings import UpgradeSettings
    from strata.tenancy.cell.schema_revisions import Chains
    from strata.tenancy.provisioning.upgrade_ledger import UpgradeLedger

log = structlog.get_logger()

_SCHEMAS_A_CONNECTION = 200
"""A back end never forgets a table that it has seen (189 MB after 1,000 schemas): a new one after so many."""
_PASSES = frozenset({"55P03", "57014", "40P01", "40001", "57P01", "57P02", "57P03", "53300", "XX000"})
"""Waiting for a lock or for anything too long, a deadlock, a server that restarts, «tuple concurrently updated»."""


class _Try(msgspec.Struct, frozen=True):
    """How one schema fared in one pass. No error: upgraded."""

    lag: Lag
    error: str | None = None
    passes: bool = False
    """Another try may go better."""
    deferred: bool = False


class Replay:
    def __init__(self, chains: Chains, settings: UpgradeSettings, ledger: UpgradeLedger, jobs: int) -> None:
        self._chains = chains
        self._settings = settings
        self._ledger = ledger
        self._jobs = jobs

    async def bring(self, lags: Sequence[Lag]) -> list[Outcome]:
        """Bring all to head, each cell's control schema before its tenants'; an outcome for each."""
        control = await self._bring([lag for lag in lags if lag.is_control])
        closed = {each.cell: each for each in control if each.state is not OutcomeState.UPGRADED}
        tenants = [lag for lag in lags if not lag.is_control]
        outcomes = await self._bring([lag for lag in tenants if lag.cell.name not in closed])
        blocked = [
            _Try(lag, f"The cell's schema «{CONTROL_SCHEMA}» comes first, and failed: {closed[lag.cell.name].error}")
            for lag in tenants
            if lag.cell.name in closed
        ]
        await self._ledger.note([self._outcome(each, 0) for each in blocked])
        return control + outcomes + [self._outcome(each, 0) for each in blocked]

    async def _bring(self, lags: Sequence[Lag]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        left = list(lags)
        for attempt in range(1, self._settings.tries + 1):
            if attempt > 1:
                pause_s = self._settings.pause_s * 2 ** (attempt - 2)
                await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))  # noqa: S311 - not to come back all at once
            last = attempt == self._settings.tries
            left_before, left = left, []
            for each in await self._pass(left_before, attempt):
                if each.passes and not last:
                    left.append(each.lag)
                else:
                    outcomes.append(self._outcome(each, attempt))
            if not left:
                break
        await self._ledger.note(outcomes)
        return outcomes

    async def _pass(self, lags: Sequence[Lag], attempt: int) -> list[_Try]:
        """Each schema once. A connection stays with a cell as long as there is work there."""
        waiting = list(self._batches(lags))
        tries: list[_Try] = []

        async def work() -> None:
            while waiting:
                cell = waiting[0][0].cell
                tries.extend(await self._in_cell(cell, _taken(waiting, cell), attempt))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._jobs, len(waiting))):
                group.create_task(work())
        return tries

    def _batches(self, lags: Sequence[Lag]) -> Iterator[list[Lag]]:
        by_cell: defaultdict[str, list[Lag]] = defaultdict(list)
        for lag in lags:
            by_cell[lag.cell.name].append(lag)
        for of_cell in by_cell.values():
            # Small enough that every connection gets some.
            size = min(self._settings.batch, -(-len(of_cell) // self._jobs))
            yield from (of_cell[start : start + size] for start in range(0, len(of_cell), size))

    async def _in_cell(self, cell: CellAddress, batches: Iterator[list[Lag]], attempt: int) -> list[_Try]:
        tries: list[_Try] = []
        async with AsyncExitStack() as stack:
            admin: asyncpg.Connection | None = None
            used = 0
            for batch in batches:
                told: dict[str, _Try] = {}
                try:
                    if admin is None or used >= _SCHEMAS_A_CONNECTION:
                        await stack.aclose()
                        admin, used = await stack.enter_async_context(self._connection(cell, attempt)), 0
                    used += len(batch)
                    await self._claimed(admin, batch, told)
                except (ServerUnreachableError, *NO_ANSWER) as error:
                    # The connection is gone. What it had brought about, the next pass reads in the ledger.
                    admin = None
                    said = getattr(error, "detail", None) or str(error)
                    told |= {
                        lag.line.schema: _Try(lag, said, passes=True) for lag in batch if lag.line.schema not in told
                    }
                tries.extend(told.values())
        return tries

    @asynccontextmanager
    async def _connection(self, cell: CellAddress, attempt: int) -> AsyncIterator[asyncpg.Connection]:
        lock_timeout_ms = min(self._settings.first_lock_timeout_ms * 2 ** (attempt - 1), self._settings.lock_timeout_ms)
        async with connection(cell.dsn, cell.database) as admin:
            # The server runs a message to its end though the sender is dead, unless it looks; a claim dies with the process.
            await admin.execute(
                "SELECT set_config('lock_timeout', $1, false), set_config('statement_timeout', $2, false),"
                " set_config('client_connection_check_interval', '250ms', false)",
                f"{lock_timeout_ms}ms",
                f"{self._settings.statement_timeout_ms}ms",
            )
            yield admin

    async def _claimed(self, admin: asyncpg.Connection, batch: Sequence[Lag], told: dict[str, _Try]) -> None:
        async with self._ledger.claimed(batch) as held:
            for lag in batch:
                if lag.line.schema in held:
                    told[lag.line.schema] = _Try(lag, f"Held by {held[lag.line.schema]}.", deferred=True)
            await self._batch(admin, {lag.line.schema: lag for lag in batch if lag.line.schema not in held}, told)

    async def _batch(self, admin: asyncpg.Connection, todo: dict[str, Lag], told: dict[str, _Try]) -> None:
        """Upgrade them in one round trip; after a failure, the rest in another."""
        while todo:
            lines = []
            has = await revisions_of(admin, todo)
            for schema, lag in list(todo.items()):
                chain = self._chain(lag)
                # Gone: its tenant was deleted meanwhile. At head: by the process that died, or whose answer was lost.
                # Unknown: a newer release has been there a moment ago.
                if has.get(schema, chain.head) == chain.head or not chain.knows(has[schema]):
                    told[schema] = _Try(todo.pop(schema))
                else:
                    lines.append(LedgerLine(schema, has[schema]))
            if not lines:
                return
            try:
                await admin.execute(batch_script(lines, self._chain(todo[lines[0].schema])))
            except asyncpg.PostgresError as error:
                await admin.execute("ROLLBACK")
                failed = await self._first_not_done(admin, lines, todo)
                told[failed] = _Try(todo.pop(failed), _said(error), passes=error.sqlstate in _PASSES)
            else:
                told |= {schema: _Try(lag) for schema, lag in todo.items()}
                return

    async def _first_not_done(
        self, admin: asyncpg.Connection, lines: Sequence[LedgerLine], todo: dict[str, Lag]
    ) -> str:
        """The script went through them in order and ended where it failed."""
        has = await revisions_of(admin, todo)
        return next(
            (line.schema for line in lines if has.get(line.schema) != self._chain(todo[line.schema]).head),
            lines[-1].schema,
        )

    def _chain(self, lag: Lag) -> RevisionChain:
        return self._chains.cell if lag.is_control else self._chains.tenant

    def _outcome(self, tried: _Try, attempts: int) -> Outcome:
        lag = tried.lag
        if tried.deferred:
            state = OutcomeState.DEFERRED
        else:
            state = OutcomeState.UPGRADED if tried.error is None else OutcomeState.FAILED
        if state is OutcomeState.FAILED:
            log.warning("upgrade.failed", cell=lag.cell.name, schema=lag.line.schema, error=tried.error)
        return Outcome(
            cell=lag.cell.name,
            schema=lag.line.schema,
            state=state,
            revision=lag.line.revision,
            head=self._chain(lag).head,
            canary=lag.canary,
            attempts=attempts,
            error=tried.error,
        )


def _taken(waiting: list[list[Lag]], cell: CellAddress) -> Iterator[list[Lag]]:
    """Take batches of that cell for as long as there are some; others may be taking too."""
    while (number := next((n for n, batch in enumerate(waiting) if batch[0].cell.name == cell.name), None)) is not None:
        yield waiting.pop(number)


def _said(error: asyncpg.PostgresError) -> str:
    """PostgreSQL's words and the code that one looks up."""
    return f"{error} ({error.sqlstate})"
