"""Findings, advice, loads and slow statements in the catalog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Select, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from strata.platform.errors import ConflictError, NotFoundError
from strata.platform.ids import new_id
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.tables import TenantRow
from strata.tenancy.neighbours.advice import NewAdvice
from strata.tenancy.neighbours.detector import Found, Verdict
from strata.tenancy.neighbours.tables import AdviceKind, AdviceRow, AdviceState, FindingRow, LoadRow, StatementRow
from strata.tenancy.usage.statements import Slow

_ENDED_AFTER = timedelta(seconds=20)
_LEFT_AT_THAT = timedelta(hours=1)
_RECENT = timedelta(seconds=30)
_KEPT = timedelta(days=30)
_MS = 1_000_000


class Finding(msgspec.Struct, frozen=True):
    id: UUID
    cell: str
    verdict: Verdict
    tenant: str | None
    began_at: datetime
    ended_at: datetime | None
    evidence: dict[str, Any]


class Advice(msgspec.Struct, frozen=True):
    id: UUID
    tenant: str
    kind: AdviceKind
    why: str
    action: dict[str, Any]
    state: AdviceState
    made_at: datetime
    decided_at: datetime | None
    decided_by: str | None


class Loaded(msgspec.Struct, frozen=True):
    """A tenant's part of a cell now, over all processes, by the second."""

    cell: str
    tenant: str
    connections: float
    statements: float
    rows: float
    waits_s: float
    cpu_estimate: float
    memory_estimate_bytes: int


class SlowStatement(msgspec.Struct, frozen=True):
    tenant: str
    fingerprint: str
    statement: str
    calls: int
    total_ms: int
    slowest_ms: int
    rows: int
    explained: bool


class AdviceDecidedError(ConflictError):
    code = "advice-decided"


class NeighbourBook:
    def __init__(self, catalog: AsyncEngine) -> None:
        self._catalog = catalog
        self._sessions = async_sessionmaker(catalog)

    async def note(self, cell: str, found: Found) -> None:
        now = datetime.now(UTC)
        evidence = {
            "share": round(found.share, 3),
            "connections": round(found.load, 3),
            "times_slower": round(found.slower, 2),
        }
        statement = insert(FindingRow).values(
            id=new_id(),
            cell=cell,
            verdict=found.verdict,
            tenant_id=found.tenant_id,
            began_at=now,
            seen_at=now,
            evidence=evidence,
        )
        async with self._catalog.begin() as connection:
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["cell", "verdict", "tenant_id"],
                    index_where=FindingRow.ended_at.is_(None),
                    set_={"seen_at": now, "evidence": evidence},
                )
            )

    async def end_unseen(self) -> None:
        """Whatever no process has seen for a while is over."""
        before = datetime.now(UTC) - _ENDED_AFTER
        async with self._catalog.begin() as connection:
            await connection.execute(
                update(FindingRow)
                .where(FindingRow.ended_at.is_(None), FindingRow.seen_at < before)
                .values(ended_at=FindingRow.seen_at)
            )

    async def propose(self, proposals: Iterable[NewAdvice]) -> None:
        """What was decided lately is left at that: a load goes on for a while after it was dealt with, or dismissed."""
        advice = list(proposals)
        if not advice:
            return
        now = datetime.now(UTC)
        statement = insert(AdviceRow)
        async with self._catalog.begin() as connection:
            lately = await connection.execute(
                select(AdviceRow.tenant_id, AdviceRow.kind, AdviceRow.subject).where(
                    AdviceRow.tenant_id.in_({each.tenant_id for each in advice}),
                    AdviceRow.decided_at > now - _LEFT_AT_THAT,
                )
            )
            settled = {tuple(row) for row in lately}
            rows = [
                {"id": new_id(), "made_at": now, **msgspec.structs.asdict(each)}
                for each in advice
                if (each.tenant_id, each.kind, each.subject) not in settled
            ]
            if not rows:
                return
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["tenant_id", "kind", "subject"],
                    # In so many words: with a parameter PostgreSQL does not know the index by it.
                    index_where=text("state = 'proposed'"),
                    set_={"why": statement.excluded.why, "action": statement.excluded.action},
                ),
                rows,
            )

    async def note_loads(self, process: str, loads: Sequence[Mapping[str, Any]]) -> None:
        now = datetime.now(UTC)
        statement = insert(LoadRow)
        changed = {name: statement.excluded[name] for name in ("seen_at", *_FIGURES)}
        async with self._catalog.begin() as connection:
            if loads:
                await connection.execute(
                    statement.on_conflict_do_update(index_elements=["cell", "tenant_id", "process"], set_=changed),
                    [{**each, "process": process, "seen_at": now} for each in loads],
                )
            await connection.execute(delete(LoadRow).where(LoadRow.seen_at < now - _RECENT))

    async def note_statements(self, slow: Iterable[tuple[tuple[UUID, str], Slow]]) -> None:
        now = datetime.now(UTC)
        rows = [
            {
                "tenant_id": tenant_id,
                "fingerprint": fingerprint,
                "statement": each.statement,
                "calls": each.calls,
                "total_ms": each.total_ns // _MS,
                "rows_touched": each.rows,
                "slowest_ms": each.slowest_ns // _MS,
                "last_at": now,
            }
            for (tenant_id, fingerprint), each in sorted(slow, key=lambda item: item[0])
        ]
        if not rows:
            return
        statement = insert(StatementRow)
        new = statement.excluded
        async with self._catalog.begin() as connection:
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["tenant_id", "fingerprint"],
                    set_={
                        "calls": StatementRow.calls + new.calls,
                        "total_ms": StatementRow.total_ms + new.total_ms,
                        "rows_touched": StatementRow.rows_touched + new.rows_touched,
                        "slowest_ms": func.greatest(StatementRow.slowest_ms, new.slowest_ms),
                        "last_at": now,
                    },
                ),
                rows,
            )

    async def findings(self, *, open_only: bool = False, limit: int = 50) -> list[Finding]:
        query = (
            select(
                FindingRow.id,
                FindingRow.cell,
                FindingRow.verdict,
                TenantRow.slug,
                FindingRow.began_at,
                FindingRow.ended_at,
                FindingRow.evidence,
            )
            .outerjoin(TenantRow, TenantRow.id == FindingRow.tenant_id)
            .order_by(FindingRow.began_at.desc(), FindingRow.id)
            .limit(limit)
        )
        if open_only:
            query = query.where(FindingRow.ended_at.is_(None))
        async with self._catalog.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [Finding(row[0], row[1], Verdict(row[2]), *row[3:]) for row in rows]

    async def advice(self, limit: int = 50) -> list[Advice]:
        """What waits for a decision."""
        query = _ADVICE.where(AdviceRow.state == AdviceState.PROPOSED)
        return await self._advice(query.order_by(AdviceRow.made_at.desc(), AdviceRow.id).limit(limit))

    async def decided(self, limit: int = 10) -> list[Advice]:
        """What was done about earlier ones, the last decision first."""
        query = _ADVICE.where(AdviceRow.state != AdviceState.PROPOSED)
        return await self._advice(query.order_by(AdviceRow.decided_at.desc(), AdviceRow.id).limit(limit))

    async def proposed(self, advice_id: UUID) -> Advice:
        """Raises NotFoundError, AdviceDecidedError."""
        async with self._catalog.connect() as connection:
            row = (await connection.execute(_ADVICE.where(AdviceRow.id == advice_id))).one_or_none()
        if row is None:
            detail = f"There is no advice {advice_id}; strata neighbours lists what there is."
            raise NotFoundError(detail)
        found = _advice(row)
        if found.state is not AdviceState.PROPOSED:
            detail = f"This advice has been decided already: {found.state.value}, by {found.decided_by}."
            raise AdviceDecidedError(detail)
        return found

    async def decide(self, advice: Advice, state: AdviceState, actor: str) -> None:
        async with self._sessions.begin() as session:
            tenant_id = await session.scalar(
                update(AdviceRow)
                .where(AdviceRow.id == advice.id, AdviceRow.state == AdviceState.PROPOSED)
                .values(state=state, decided_at=func.now(), decided_by=actor)
                .returning(AdviceRow.tenant_id)
            )
            # None: somebody else was quicker, and it is that decision which is kept.
            if tenant_id is not None:
                detail: dict[str, object] = {"advice": str(advice.id), "kind": advice.kind.value, **advice.action}
                record(session, actor, _ACTIONS[state], advice.tenant, tenant_id=tenant_id, detail=detail)

    async def loads(self) -> list[Loaded]:
        figures = [func.sum(getattr(LoadRow, name)).label(name) for name in _FIGURES]
        query = (
            select(LoadRow.cell, TenantRow.slug, *figures)
            .join(TenantRow, TenantRow.id == LoadRow.tenant_id)
            .where(LoadRow.seen_at > func.now() - _RECENT)
            .group_by(LoadRow.cell, TenantRow.slug)
            .order_by(figures[0].desc(), TenantRow.slug)
            .limit(50)
        )
        async with self._catalog.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [
            Loaded(
                row[0],
                row[1],
                connections=float(row.connections),
                statements=float(row.statements),
                rows=float(row.rows_touched),
                waits_s=float(row.waits_s),
                cpu_estimate=float(row.cpu_estimate),
                memory_estimate_bytes=int(row.memory_estimate_bytes),
            )
            for row in rows
        ]

    async def slow_statements(self, slug: str | None = None, limit: int = 20) -> list[SlowStatement]:
        query = (
            select(StatementRow, TenantRow.slug)
            .join(TenantRow, TenantRow.id == StatementRow.tenant_id)
            .order_by(StatementRow.total_ms.desc(), StatementRow.fingerprint)
            .limit(limit)
        )
        if slug is not None:
            query = query.where(TenantRow.slug == slug)
        async with self._catalog.connect() as connection:
            rows = (await connection.execute(query)).all()
        return [
            SlowStatement(
                row.slug,
                row.fingerprint,
                row.statement,
                row.calls,
                row.total_ms,
                row.slowest_ms,
                row.rows_touched,
                explained=row.explained_at is not None,
            )
            for row in rows
        ]

    async def unexplained(self, limit: int) -> list[tuple[UUID, str, str, int]]:
        """Tenant, fingerprint, text and the slowest call in ms; those that took most first."""
        query = (
            select(StatementRow.tenant_id, StatementRow.fingerprint, StatementRow.statement, StatementRow.slowest_ms)
            .where(StatementRow.explained_at.is_(None))
            .order_by(StatementRow.total_ms.desc())
            .limit(limit)
        )
        async with self._catalog.connect() as connection:
            return [(row[0], row[1], row[2], row[3]) for row in await connection.execute(query)]

    async def explained(self, tenant_id: UUID, fingerprint: str, plan: Mapping[str, Any] | None) -> None:
        async with self._catalog.begin() as connection:
            await connection.execute(
                update(StatementRow)
                .where(StatementRow.tenant_id == tenant_id, StatementRow.fingerprint == fingerprint)
                .values(explained_at=func.now(), plan=plan)
            )

    async def _advice(self, query: Select[Any]) -> list[Advice]:
        async with self._catalog.connect() as connection:
            return [_advice(row) for row in await connection.execute(query)]

    async def purge(self) -> None:
        before = datetime.now(UTC) - _KEPT
        async with self._catalog.begin() as connection:
            await connection.execute(delete(StatementRow).where(StatementRow.last_at < before))
            await connection.execute(delete(FindingRow).where(FindingRow.ended_at < before))


_ACTIONS = {AdviceState.CARRIED_OUT: "advice.carry-out", AdviceState.DISMISSED: "advice.dismiss"}
_FIGURES = ("connections", "statements", "rows_touched", "waits_s", "cpu_estimate", "memory_estimate_bytes")
_ADVICE = select(
    AdviceRow.id,
    TenantRow.slug,
    AdviceRow.kind,
    AdviceRow.why,
    AdviceRow.action,
    AdviceRow.state,
    AdviceRow.made_at,
    AdviceRow.decided_at,
    AdviceRow.decided_by,
).join(TenantRow, TenantRow.id == AdviceRow.tenant_id)


def _advice(row: Sequence[Any]) -> Advice:
    return Advice(row[0], row[1], AdviceKind(row[2]), row[3], row[4], AdviceState(row[5]), *row[6:])
