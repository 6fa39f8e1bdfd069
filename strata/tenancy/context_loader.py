"""One query that reads everything a TenantContext shows: tenant, placement, and every facet's document."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from enum import StrEnum
from typing import Any, cast
from uuid import UUID

import msgspec
import structlog
from sqlalchemy import ARRAY, ColumnElement, Row, Select, Text, bindparam, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.platform.database.availability import is_unreachable
from strata.platform.errors import ConfigurationError, InvalidInputError, UnavailableError
from strata.tenancy.catalog.tables import CellRow, CertificateStatus, DomainRow, PlacementRow, TenantRow
from strata.tenancy.context import TenantContext
from strata.tenancy.facets.base import Facet
from strata.tenancy.facets.registry import FACETS
from strata.tenancy.model import Placement, TenantStatus, Tier
from strata.tenancy.plans import Plan, plan_held

log = structlog.get_logger(__name__)

_ROUTABLE = frozenset({TenantStatus.ACTIVE, TenantStatus.READ_ONLY, TenantStatus.SUSPENDED, TenantStatus.CLOSING})
_FACET = "facet_"
_PAGE = 1000


class NameKind(StrEnum):
    SLUG = "slug"
    DOMAIN = "domain"


class TenantSnapshot(msgspec.Struct, frozen=True):
    """What the catalog said of a tenant at one moment; `context` is None when nobody may be routed to it."""

    id: UUID
    version: int
    context: TenantContext | None
    domains: frozenset[str] = frozenset()

    def answers_to(self, kind: NameKind, name: str) -> bool:
        if self.context is None:
            return False
        return self.context.slug == name if kind is NameKind.SLUG else name in self.domains

    def names(self) -> list[tuple[NameKind, str]]:
        if self.context is None:
            return []
        return [(NameKind.SLUG, self.context.slug), *((NameKind.DOMAIN, domain) for domain in self.domains)]


class CatalogUnavailableError(UnavailableError):
    code = "catalog-unavailable"
    title = "Catalog unavailable"

    def __init__(self) -> None:
        super().__init__("The catalog of accounts does not answer; try again shortly.")


class ContextLoader:
    def __init__(self, engine: AsyncEngine, facets: Iterable[Facet[Any]] = FACETS) -> None:
        # One statement needs no BEGIN and ROLLBACK around it.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._facets = tuple(facets)
        base = self._select()
        self._by_id = base.where(TenantRow.id == bindparam("tenant_id"))
        self._page = base.where(TenantRow.id > bindparam("after")).order_by(TenantRow.id).limit(_PAGE)
        self._by_name: dict[NameKind, Select[*tuple[Any, ...]]] = {
            NameKind.SLUG: base.where(TenantRow.slug == bindparam("name"), TenantRow.status != TenantStatus.CLOSED),
            NameKind.DOMAIN: base.where(
                TenantRow.id
                == select(DomainRow.tenant_id)
                .where(DomainRow.hostname == bindparam("name"), *_routed())
                .scalar_subquery()
            ),
        }

    async def by_id(self, tenant_id: UUID) -> TenantSnapshot | None:
        return await self._load(self._by_id, {"tenant_id": tenant_id})

    async def by_name(self, kind: NameKind, name: str) -> TenantSnapshot | None:
        return await self._load(self._by_name[kind], {"name": name})

    def _select(self) -> Select[*tuple[Any, ...]]:
        domains = select(DomainRow.hostname).where(DomainRow.tenant_id == TenantRow.id, *_routed()).correlate(TenantRow)
        return (
            select(
                TenantRow.id,
                TenantRow.slug,
                TenantRow.name,
                TenantRow.status,
                TenantRow.status_reason,
                TenantRow.plan,
                TenantRow.plan_version,
                TenantRow.created_at,
                TenantRow.parent_id,
                TenantRow.version,
                CellRow.name.label("cell"),
                PlacementRow.tier,
                PlacementRow.schema_name,
                PlacementRow.epoch,
                func.array(domains.scalar_subquery(), type_=ARRAY(Text)).label("domains"),
                *(_labelled(facet) for facet in self._facets),
            )
            .outerjoin(PlacementRow, PlacementRow.tenant_id == TenantRow.id)
            .outerjoin(CellRow, CellRow.id == PlacementRow.cell_id)
        )

    async def every(self) -> AsyncIterator[TenantContext]:
        """Of every tenant that requests are routed to, by id, read in pages; for those who look at all of them."""
        after = UUID(int=0)
        while True:
            rows = await self._rows(self._page, {"after": after})
            for row in rows:
                context = self._snapshot(row).context
                if context is not None:
                    yield context
            if len(rows) < _PAGE:
                return
            after = rows[-1].id

    async def _load(self, statement: Select[*tuple[Any, ...]], parameters: dict[str, object]) -> TenantSnapshot | None:
        rows = await self._rows(statement, parameters)
        return self._snapshot(rows[0]) if rows else None

    async def _rows(self, statement: Select[*tuple[Any, ...]], parameters: dict[str, object]) -> Sequence[Row[Any]]:
        try:
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, parameters)).all()
        except (SQLAlchemyError, OSError) as error:
            # An OSError can only be the connection's: nothing else is touched here. It includes the time-out of a connect.
            if isinstance(error, OSError) or is_unreachable(error):
                raise CatalogUnavailableError from error
            raise

    def _snapshot(self, row: Row[Any]) -> TenantSnapshot:
        status = TenantStatus(row.status)
        if status not in _ROUTABLE or row.cell is None:
            return TenantSnapshot(id=row.id, version=row.version, context=None)
        plan = _known_plan(row.plan, row.plan_version, row.slug)
        fields = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
        decoded: dict[str, Any] = {
            facet.name: self._decoded(facet, fields[_FACET + facet.name], plan, row.id) for facet in self._facets
        }
        context = TenantContext(
            id=row.id,
            slug=row.slug,
            name=row.name,
            status=status,
            plan=row.plan,
            plan_version=row.plan_version,
            created_at=row.created_at,
            version=row.version,
            placement=Placement(cell=row.cell, tier=Tier(row.tier), schema_name=row.schema_name, epoch=row.epoch),
            status_reason=row.status_reason,
            parent_id=row.parent_id,
            **decoded,
        )
        return TenantSnapshot(row.id, row.version, context, frozenset(row.domains))

    @staticmethod
    def _decoded(facet: Facet[Any], document: object, plan: Plan, tenant_id: UUID) -> msgspec.Struct:
        try:
            return cast("msgspec.Struct", facet.decode(document, plan))
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            # One bad document must not take a tenant down; what its plan gives is safe, and the log says what to mend.
            log.error("facet.unreadable", tenant_id=str(tenant_id), facet=facet.name, error=str(error))  # noqa: TRY400
            return cast("msgspec.Struct", facet.decode(None, plan))


def _labelled(facet: Facet[Any]) -> ColumnElement[Any]:
    return facet.expression().label(_FACET + facet.name)


def _routed() -> tuple[ColumnElement[bool], ...]:
    return DomainRow.verified_at.is_not(None), DomainRow.certificate_status == CertificateStatus.ACTIVE


def _known_plan(plan: str, version: int, slug: str) -> Plan:
    try:
        return plan_held(plan, version)
    except InvalidInputError as error:
        message = f"tenant {slug}: {error.detail}"
        raise ConfigurationError(message) from None
