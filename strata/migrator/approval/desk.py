"""Approving a server that was failed over, step by step (the package's docstring has the order and why)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import asyncpg
import msgspec
from sqlalchemy import delete, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from strata.migrator.approval.errors import ApprovalRunningError, CutOverUnderWayError
from strata.migrator.approval.findings import Behind, Finding, Standing
from strata.migrator.approval.leftovers import Leftover, Leftovers, claimed_as
from strata.migrator.approval.promoted import Promoted, PromotedCell, look, require_silent, takes_writes
from strata.migrator.approval.reconciliation import GAP, Reconciliation, compared, reconcile
from strata.migrator.faults import reached
from strata.migrator.models import MoveRow
from strata.migrator.phases import AT_THE_FLIP
from strata.platform.database.failures import NO_ANSWER
from strata.platform.database.lease import lease
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.catalog.tables import CellRow, PlacementRow, ReplicaRow, ServerRow, TenantRow
from strata.tenancy.cell.inspection import application
from strata.tenancy.provisioning.servers import add_server

if TYPE_CHECKING:
    from sqlalchemy import URL

    from strata.tenancy.replicas.register import ReplicaRegister

_ASK_AGAIN_S = 0.2


class CellApproval(msgspec.Struct, frozen=True):
    cell: str
    timeline: str
    was: str | None
    """The timeline that the catalog had approved before."""
    served: int
    """Tenants that are let in."""
    findings: list[Finding]
    """Those of whom there is something to say."""
    behind: list[Behind]
    passed_over: int
    """Positions of the outbox that are never given out."""


class MissingCell(msgspec.Struct, frozen=True):
    """A cell that the catalog has on the server, and of which the server has not heard."""

    cell: str
    tenants: list[str]
    sentence: str


class ServerApproval(msgspec.Struct, frozen=True):
    server: str
    cells: list[CellApproval]
    missing: list[MissingCell]
    replicas: list[str]
    """Registrations of standbys that were dropped: they are the primary now."""
    leftovers: list[Leftover]
    dry_run: bool = False

    @property
    def shut_out(self) -> list[Finding]:
        """Tenants that live on the server and are not let in."""
        return [each for cell in self.cells for each in cell.findings if each.standing is Standing.LOST]

    @property
    def complete(self) -> bool:
        return not self.shut_out and not self.missing and all(each.removed for each in self.leftovers)


class ApprovalDesk:
    def __init__(
        self,
        catalog: AsyncEngine,
        catalog_url: URL,
        registry: Registry,
        replicas: ReplicaRegister,
        leftovers: Leftovers,
        *,
        role_prefix: str,
        statement_timeout_ms: int,
    ) -> None:
        """`role_prefix` and `statement_timeout_ms` are what `add_server` wants."""
        self._catalog = catalog
        self._catalog_url = catalog_url
        self._registry = registry
        self._replicas = replicas
        self._leftovers = leftovers
        self._role_prefix = role_prefix
        self._statement_timeout_ms = statement_timeout_ms

    async def approve(
        self,
        name: str,
        actor: str,
        *,
        url: URL | None = None,
        given_up: str | None = None,
        dry_run: bool = False,
        patience_s: float = 15.0,
    ) -> ServerApproval:
        """Let tenants in again on the server. Done already, it changes nothing; run again after a death, it goes on.

        `url`: the promoted standby's address (its administrator's) where it is another than the registered one.
        `given_up`: see `promoted.look`. `patience_s`: how long cut-overs have to be called off. Errors: those of `approval.errors`.
        """
        async with lease(self._catalog_url, f"approve/{name}") as ours:
            if not ours:
                raise ApprovalRunningError(name)
            server, rows = await self._registered(name)
            before = await self._registry.admin_url(server)
            found = await look(self._registry, name, url or before, rows, given_up)
            if url is not None:
                await require_silent(name, before, url)
            if dry_run:
                return await self._dry_run(server, found, url or before, actor)
            if (url or before) != before or await self._application_is_refused(found):
                await self._register(server, url or before, actor, given_up)
                await reached("approving.registered")
                server, _ = await self._registered(name)
            if not all(cell.recorded for cell in found.cells):
                await self._wait_for_cut_overs(server, [cell.row.name for cell in found.cells], patience_s)
            return await self._approve(server, found, actor)

    async def _application_is_refused(self, found: Promoted) -> bool:
        """Its password was renewed after the last that the standby heard: everybody would find the door locked."""
        for cell in found.cells:
            try:
                async with application(await self._registry.cell(cell.row.name)):
                    pass
            except asyncpg.InvalidAuthorizationSpecificationError:
                return True
            except NO_ANSWER:
                # A pooler that is to be pointed here yet.
                return False
        return False

    async def _register(self, server: ServerRow, url: URL, actor: str, given_up: str | None) -> None:
        await add_server(
            self._registry,
            server.name,
            url,
            region=server.region,
            role_prefix=self._role_prefix,
            actor=actor,
            app_address=server.app_address,
            statement_timeout_ms=self._statement_timeout_ms,
            given_up=given_up,
        )

    async def _dry_run(self, server: ServerRow, found: Promoted, url: URL, actor: str) -> ServerApproval:
        cells = [_told(cell, await self._compared(server, cell)) for cell in found.cells]
        databases = [each async for each in self._leftovers.clear_databases(server.name, url, actor, dry_run=True)]
        missing = [await self._missing(row) for row in found.missing]
        replicas = await self._promoted(server, url)
        return ServerApproval(server.name, cells, missing, replicas, databases, dry_run=True)

    async def _approve(self, server: ServerRow, found: Promoted, actor: str) -> ServerApproval:
        cells, leftovers = [], []
        for cell in found.cells:
            reconciliation = await self._compared(server, cell)
            told = _told(cell, reconciliation)
            if reconciliation.changes or not cell.recorded:
                await self._say_so(actor, server, cell, reconciliation)
                await reached("approving.said")
                await reconcile(cell, reconciliation)
                await reached("approving.reconciled")
                await self._record(actor, server, told)
                await reached("approving.recorded")
            cells.append(told)
            leftovers += [each async for each in self._leftovers.clear(server, cell, reconciliation.findings, actor)]
        replicas = await self._drop_replicas(server, actor)
        url = await self._registry.admin_url(server)
        leftovers += [each async for each in self._leftovers.clear_databases(server.name, url, actor, dry_run=False)]
        await self._leftovers.release(server)
        missing = [await self._missing(row) for row in found.missing]
        return ServerApproval(server.name, cells, missing, replicas, leftovers)

    async def _compared(self, server: ServerRow, cell: PromotedCell) -> Reconciliation:
        return await compared(self._catalog, cell, claimed_as(server.name))

    async def _registered(self, name: str) -> tuple[ServerRow, Sequence[CellRow]]:
        async with AsyncSession(self._catalog, expire_on_commit=False) as session:
            server = await Registry.server_row(session, name)
        return server, await self._registry.whole_cells_on(name)

    async def _wait_for_cut_overs(self, server: ServerRow, cells: Sequence[str], patience_s: float) -> None:
        """Whoever shut a fence on the old primary may still flip, and must not find it open at the old epoch here.

        A cut-over that begins later finds no way past `hold`, which refuses a server that is not approved.
        """
        query = select(MoveRow.id).where(
            MoveRow.phase.in_(AT_THE_FLIP), or_(MoveRow.source_cell.in_(cells), MoveRow.target_cell.in_(cells))
        )
        moves: list[str] = []
        for _ in range(max(1, int(patience_s / _ASK_AGAIN_S))):
            async with AsyncSession(self._catalog) as session:
                moves = [str(each) for each in await session.scalars(query)]
            if not moves:
                return
            await asyncio.sleep(_ASK_AGAIN_S)
        raise CutOverUnderWayError(server.name, moves)

    async def _say_so(self, actor: str, server: ServerRow, cell: PromotedCell, found: Reconciliation) -> None:
        async with AsyncSession(self._catalog) as session, session.begin():
            detail: dict[str, object] = {
                "server": server.name,
                "timeline": cell.timeline,
                "was": cell.row.timeline,
                "position": found.position,
            }
            record(session, actor, "cell.reconcile", cell.row.name, detail=detail)
            for finding in found.findings:
                if finding.becomes is not None or finding.standing is Standing.LOST:
                    about: dict[str, object] = {"cell": finding.cell, "standing": finding.standing}
                    record(session, actor, "tenant.reconcile", finding.slug, tenant_id=finding.tenant_id, detail=about)

    async def _record(self, actor: str, server: ServerRow, told: CellApproval) -> None:
        async with AsyncSession(self._catalog) as session, session.begin():
            row = await Registry.cell_row(session, told.cell)
            row.timeline = told.timeline
            detail: dict[str, object] = {
                "server": server.name,
                "timeline": told.timeline,
                "served": told.served,
                "behind": [each.slug for each in told.behind],
                "shut_out": [each.slug for each in told.findings if each.standing is Standing.LOST],
            }
            record(session, actor, "cell.approve", told.cell, detail=detail)

    async def _promoted(self, server: ServerRow, url: URL) -> list[str]:
        """Registered standbys that are the primary now: by their address, or because they say so."""
        return [
            each.name
            for each in await self._replicas.of_server(server.name)
            if (each.url.host, each.url.port) == (url.host, url.port) or await takes_writes(each.url)
        ]

    async def _drop_replicas(self, server: ServerRow, actor: str) -> list[str]:
        names = await self._promoted(server, await self._registry.admin_url(server))
        async with AsyncSession(self._catalog) as session, session.begin():
            for name in names:
                await session.execute(
                    delete(ReplicaRow).where(ReplicaRow.name == name, ReplicaRow.server_id == server.id)
                )
                record(session, actor, "replica.remove", name, detail={"server": server.name, "why": "promoted"})
        return names

    async def _missing(self, row: CellRow) -> MissingCell:
        query = select(TenantRow.slug).join(PlacementRow, PlacementRow.tenant_id == TenantRow.id)
        async with AsyncSession(self._catalog) as session:
            slugs = list(await session.scalars(query.where(PlacementRow.cell_id == row.id).order_by(TenantRow.slug)))
        said = (
            f"Cell «{row.name}» is not on this server: it was made after the last that the standby heard. Its tenants stay "
            "shut out. Restore its database from the old primary or a backup and approve again; a tenant that moved here has "
            "its old home while its move lasts (strata migrate accept-loss SLUG); else give it up with strata tenant delete SLUG."
        )
        return MissingCell(row.name, slugs, said)


def _told(cell: PromotedCell, found: Reconciliation) -> CellApproval:
    served = sum(each.standing in {Standing.SERVED, Standing.REOPENED} for each in found.findings)
    of_note = [each for each in found.findings if each.standing is not Standing.SERVED]
    passed_over = 0 if cell.approved else max(found.counted_to - found.position, 0) + GAP
    return CellApproval(cell.row.name, cell.timeline, cell.row.timeline, served, of_note, found.behind, passed_over)
