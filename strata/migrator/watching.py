"""What Prometheus is told of moves, streams and waves: read from the catalog and from the servers, not from workers.

Whoever answers the scrape looks itself: what matters most is true when no worker is alive (a slot that makes a server
keep its log, a move that nobody works on). So every application process says the same; rules take the maximum. The labels
are bounded: moves and waves that have not ended, `MOST` of each, and slots, of which a server has few.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from strata.migrator.models import MoveEventRow, MoveObjectRow, MoveRow, ObjectKind
from strata.migrator.phases import FINISHED, Phase
from strata.migrator.waves.models import ENDED, WaveRow, WaveState
from strata.migrator.waves.store import counts_of
from strata.platform.database.administration import administrator
from strata.platform.database.failures import NO_ANSWER
from strata.platform.errors import StrataError
from strata.tenancy.catalog.tables import ServerRow, TenantRow

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from strata.platform.settings import MigratorSettings
    from strata.tenancy.catalog.registry import Registry

log = structlog.get_logger(__name__)

MOST = 200
_FRESH_FOR_S = 5.0
_CATALOG_TIMEOUT_S = 5.0
"""With the servers' two, less than the ten that Prometheus waits for a scrape."""
_SERVER_TIMEOUT_S = 2.0
_BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
_SLOTS = """
SELECT s.slot_name, s.active, coalesce(s.wal_status = 'lost', false) AS lost,
       pg_wal_lsn_diff(here.lsn, s.restart_lsn)::float8 AS kept_bytes,
       pg_wal_lsn_diff(here.lsn, s.confirmed_flush_lsn)::float8 AS lag_bytes,
       extract(epoch FROM r.flush_lag)::float8 AS lag_s
  FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) AS here,
       pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid
 WHERE s.slot_name LIKE 'strata\\_%' AND s.slot_type = 'logical' AND NOT s.temporary
"""


class OpenMove(msgspec.Struct, frozen=True):
    id: str
    tenant: str
    phase: str
    phase_age_s: float
    rows: float
    bytes: float
    retention_age_s: float | None
    retention_left_s: float | None

    @property
    def labels(self) -> list[str]:
        return [self.id, self.tenant]


class Slot(msgspec.Struct, frozen=True):
    server: str
    name: str
    active: bool
    lost: bool
    kept_bytes: float | None
    lag_bytes: float | None
    lag_s: float | None


class WaveSeen(msgspec.Struct, frozen=True):
    id: str
    state: str
    counts: dict[str, int]


class CatalogView(msgspec.Struct, frozen=True):
    phases: dict[str, int]
    blocks: list[int]
    """Moves whose write block was within each bucket, those without a bound last."""
    blocked_ms: float
    unattended: int
    unattended_s: float
    moves: list[OpenMove]
    slots: dict[str, tuple[str, str, bool]]
    """By a registered slot's name: move, tenant, whether the move is under way."""
    waves: list[WaveSeen]
    servers: list[str]


class MoveWatch:
    """`exposition()` answers a scrape; two that come together, or soon after one another, are one look."""

    def __init__(self, catalog: AsyncEngine, registry: Registry, settings: MigratorSettings) -> None:
        self._sessions = async_sessionmaker(catalog)
        self._registry = registry
        self._settings = settings
        self._lock = asyncio.Lock()
        self._answer = b""
        self._answered_at = -_FRESH_FOR_S

    async def exposition(self) -> bytes:
        async with self._lock:
            if time.monotonic() - self._answered_at >= _FRESH_FOR_S:
                self._answer = generate_latest(_collected(await self._look()))
                self._answered_at = time.monotonic()
            return self._answer

    async def _look(self) -> list[Metric]:
        try:
            async with asyncio.timeout(_CATALOG_TIMEOUT_S), self._sessions() as session:
                view = await _catalog_view(session)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning("moves.not_measured", error=type(error).__name__)
            return [_gauge("strata_catalog_up", "Whether the catalog answers.", 0)]
        seen = await asyncio.gather(*(self._slots_of(server) for server in view.servers))
        found = dict(zip(view.servers, seen, strict=True))
        return [
            _gauge("strata_catalog_up", "Whether the catalog answers.", 1),
            _gauge("strata_move_wal_cap_bytes", "WAL a move may make a server keep.", self._settings.wal_cap_bytes),
            *_of_moves(view),
            *_of_servers(found),
            *_of_slots([slot for slots in seen for slot in slots or ()], view.slots),
            *_of_waves(view.waves),
        ]

    async def _slots_of(self, server: str) -> list[Slot] | None:
        """None: it does not answer."""
        try:
            async with asyncio.timeout(_SERVER_TIMEOUT_S):
                url = await self._registry.admin_url_of_server(server)
                async with administrator(url) as admin:
                    rows = await admin.fetch(_SLOTS)
        except (StrataError, SQLAlchemyError, *NO_ANSWER):
            return None
        return [
            Slot(
                server, row["slot_name"], row["active"], row["lost"], row["kept_bytes"], row["lag_bytes"], row["lag_s"]
            )
            for row in rows
        ]


async def _catalog_view(session: AsyncSession) -> CatalogView:
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    by_phase = await session.execute(select(MoveRow.phase, func.count()).group_by(MoveRow.phase))
    block = MoveRow.write_block_ms
    bounds = (
        await session.execute(
            select(
                func.coalesce(func.sum(block), 0.0),
                func.count(block),
                *(func.count().filter(block <= bound) for bound in _BUCKETS_MS),
            )
        )
    ).one()
    unattended = (
        await session.execute(
            select(
                func.count(), func.min(func.coalesce(MoveRow.leased_until, MoveRow.not_before, MoveRow.created_at))
            ).where(
                MoveRow.phase.not_in(FINISHED),
                or_(MoveRow.phase != Phase.FAILED, MoveRow.wish.is_not(None)),
                or_(MoveRow.leased_until.is_(None), MoveRow.leased_until < func.clock_timestamp()),
                or_(MoveRow.not_before.is_(None), MoveRow.not_before < func.clock_timestamp()),
            )
        )
    ).one()
    objects = await session.execute(
        select(MoveObjectRow.name, MoveRow.id, TenantRow.slug, MoveRow.phase)
        .join(MoveRow, MoveRow.id == MoveObjectRow.move_id)
        .join(TenantRow, TenantRow.id == MoveRow.tenant_id)
        .where(MoveObjectRow.kind == ObjectKind.SLOT)
    )
    waves = list(await session.scalars(select(WaveRow).where(WaveRow.state.not_in(ENDED)).limit(MOST)))
    counts = await counts_of(session, [wave.id for wave in waves])
    return CatalogView(
        phases={phase: count for phase, count in by_phase.all()},  # noqa: C416 - dict() of rows has no types
        blocks=[*bounds[2:], bounds[1]],
        blocked_ms=bounds[0] or 0.0,
        unattended=unattended[0],
        unattended_s=0.0 if unattended[1] is None else max((now - unattended[1]).total_seconds(), 0.0),
        moves=await _open_moves(session, now),
        slots={name: (str(move_id), slug, phase not in FINISHED) for name, move_id, slug, phase in objects},
        waves=[WaveSeen(str(wave.id), wave.state, counts.get(wave.id, {})) for wave in waves],
        servers=list(await session.scalars(select(ServerRow.name).order_by(ServerRow.name))),
    )


async def _open_moves(session: AsyncSession, now: datetime) -> list[OpenMove]:
    since = (
        select(func.max(MoveEventRow.at))
        .where(MoveEventRow.move_id == MoveRow.id, MoveEventRow.phase != MoveRow.phase)
        .correlate(MoveRow)
        .scalar_subquery()
    )
    rows = await session.execute(
        select(MoveRow, TenantRow.slug, func.coalesce(since, MoveRow.created_at))
        .join(TenantRow, TenantRow.id == MoveRow.tenant_id)
        .where(MoveRow.phase.not_in(FINISHED))
        # Of too many, those that people wait for before those that are only kept.
        .order_by(MoveRow.phase == Phase.RETAINING, MoveRow.id)
        .limit(MOST)
    )
    seen = []
    for row, slug, entered_at in rows:
        left = None
        if row.phase == Phase.RETAINING and row.retained_until is not None:
            left = (row.retained_until - now).total_seconds()
        seen.append(
            OpenMove(
                str(row.id),
                slug,
                row.phase,
                max((now - entered_at).total_seconds(), 0.0),
                row.progress.get("rows", 0),
                row.progress.get("bytes", 0),
                None if left is None else row.retention_s - left,
                left,
            )
        )
    return seen


def _of_moves(view: CatalogView) -> Iterable[Metric]:
    by_phase = GaugeMetricFamily("strata_moves", "Moves by phase, those that have ended too.", labels=["phase"])
    for phase in Phase:
        by_phase.add_metric([phase.value], view.phases.get(phase, 0))
    yield by_phase
    yield _gauge("strata_moves_unattended", "Moves that need a worker and have none.", view.unattended)
    yield _gauge("strata_moves_unattended_seconds", "How long the oldest of them has had none.", view.unattended_s)
    bounds = [*(str(float(bound)) for bound in _BUCKETS_MS), "+Inf"]
    blocks = HistogramMetricFamily(
        "strata_move_write_block_ms", "How long a cut-over kept the tenant's writes waiting."
    )
    blocks.add_metric([], list(zip(bounds, view.blocks, strict=True)), view.blocked_ms)
    yield blocks
    ages = GaugeMetricFamily(
        "strata_move_phase_seconds", "How long a move has been in its phase.", labels=["move", "tenant", "phase"]
    )
    for move in view.moves:
        ages.add_metric([*move.labels, move.phase], move.phase_age_s)
    yield ages
    for name, told, values in (
        ("strata_move_rows", "Rows copied.", [(move, move.rows) for move in view.moves]),
        ("strata_move_bytes", "Bytes copied.", [(move, move.bytes) for move in view.moves]),
        (
            "strata_move_retention_age_seconds",
            "How long the old home has been kept up to date.",
            [(move, move.retention_age_s) for move in view.moves],
        ),
        (
            "strata_move_retention_left_seconds",
            "How long the move can still be rolled back.",
            [(move, move.retention_left_s) for move in view.moves],
        ),
    ):
        family = GaugeMetricFamily(name, told, labels=["move", "tenant"])
        for move, value in values:
            if value is not None:
                family.add_metric(move.labels, value)
        yield family


def _of_servers(found: dict[str, list[Slot] | None]) -> Iterable[Metric]:
    up = GaugeMetricFamily("strata_server_up", "Whether the server's administrator can look there.", labels=["server"])
    for server, slots in found.items():
        up.add_metric([server], 0 if slots is None else 1)
    yield up


def _of_slots(slots: Sequence[Slot], registered: dict[str, tuple[str, str, bool]]) -> Iterable[Metric]:
    for name, told, field in (
        ("strata_slot_kept_bytes", "WAL that the server keeps for the slot.", "kept_bytes"),
        ("strata_slot_lag_bytes", "WAL that the stream's reader has not confirmed.", "lag_bytes"),
        ("strata_slot_lag_seconds", "How far behind the stream's reader was when it last said so.", "lag_s"),
        ("strata_slot_active", "Whether somebody reads the stream.", "active"),
        ("strata_slot_lost", "Whether the server has thrown away what the slot needs.", "lost"),
    ):
        family = GaugeMetricFamily(name, told, labels=["server", "slot", "move", "tenant"])
        for slot in slots:
            move, tenant, _ = registered.get(slot.name, ("", "", False))
            if (value := getattr(slot, field)) is not None:
                family.add_metric([slot.server, slot.name, move, tenant], float(value))
        yield family
    orphaned = GaugeMetricFamily(
        "strata_slot_orphaned", "A slot of ours that no move under way has registered.", labels=["server", "slot"]
    )
    for slot in slots:
        orphaned.add_metric([slot.server, slot.name], 0 if registered.get(slot.name, ("", "", False))[2] else 1)
    yield orphaned


def _of_waves(waves: Sequence[WaveSeen]) -> Iterable[Metric]:
    state = GaugeMetricFamily("strata_wave_state", "1 for the state a wave is in.", labels=["wave", "state"])
    tenants = GaugeMetricFamily("strata_wave_tenants", "Tenants of a wave by how it went.", labels=["wave", "outcome"])
    for wave in waves:
        for each in WaveState:
            state.add_metric([wave.id, each.value], 1 if wave.state == each else 0)
        for outcome, count in wave.counts.items():
            tenants.add_metric([wave.id, outcome], count)
    yield state
    yield tenants


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(name, told, value=value)


class _Ready:
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _collected(families: list[Metric]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Ready(families))
    return registry
