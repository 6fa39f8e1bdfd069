"""The staff's API: what the console's pages do, for programs. Served on the console's host alone."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import QueryParameter
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.console.tenants import StatusChange, TenantFilter, actor, change_status, tenants_page
from strata.identity.permissions import Permission, requires
from strata.platform.paging import DEFAULT_LIMIT, MAX_LIMIT, Page, Paging
from strata.platform.tokens import Claims
from strata.tenancy.audit.entries import EntryFilter, EntryOut
from strata.tenancy.catalog.audit_chain import list_entries
from strata.tenancy.catalog.registry import CellSummary, Registry, ServerSummary
from strata.tenancy.catalog.tenants import TenantDirectory, TenantSummary
from strata.tenancy.model import TenantStatus, Tier
from strata.tenancy.provisioning.tenants import NewTenant, Provisioning
from strata.tenancy.settings.book import SettingsBook
from strata.tenancy.settings.conditions import setting_condition

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)]
Where = Annotated[list[str] | None, QueryParameter(max_items=20)]
"""settings.regional.time_zone=Europe/Berlin; several: all of them."""


class TenantToMake(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    slug: str
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    tier: Tier
    plan: str | None = None
    """None: the lowest plan whose default is the tier."""
    region: str | None = None
    cell: str | None = None
    parent: str | None = None


class TenantsApi(Controller):
    path = "/staff/v1/tenants"
    tags = ("Staff",)
    # Tenants read the application's description on their own hosts; nothing of this concerns them.
    include_in_schema = False

    @get(opt=requires(Permission.STAFF_TENANTS_READ), summary="Tenants by slug")
    async def list_tenants(
        self,
        directory: TenantDirectory,
        settings_book: SettingsBook,
        limit: Limit = DEFAULT_LIMIT,
        cursor: str | None = None,
        search: str | None = None,
        status: TenantStatus | None = None,
        where: Where = None,
    ) -> Page[TenantSummary]:
        conditions = [setting_condition(settings_book.model, each) for each in where or ()]
        return await tenants_page(directory, Paging(limit, cursor), TenantFilter(search, status, conditions))

    @post(opt=requires(Permission.STAFF_TENANTS_WRITE), summary="Make a tenant; the same again changes nothing")
    async def create_tenant(
        self, data: TenantToMake, directory: TenantDirectory, provisioning: Provisioning, claims: Claims
    ) -> Response[TenantSummary]:
        created = await provisioning.create(NewTenant(**msgspec.structs.asdict(data)), actor(claims))
        return Response(await directory.get(data.slug), status_code=201 if created.created else 200)

    @get("/{slug:str}", opt=requires(Permission.STAFF_TENANTS_READ), summary="One tenant")
    async def get_tenant(self, slug: str, directory: TenantDirectory) -> TenantSummary:
        return await directory.get(slug)

    @post(
        "/{slug:str}/status",
        opt=requires(Permission.STAFF_TENANTS_WRITE),
        summary="Activate, hold read-only, suspend",
        status_code=200,
    )
    async def set_status(
        self, slug: str, data: StatusChange, directory: TenantDirectory, claims: Claims
    ) -> TenantSummary:
        return await change_status(directory, slug, data, claims)

    @get("/{slug:str}/audit", opt=requires(Permission.STAFF_AUDIT_READ), summary="What was done to a tenant")
    async def get_audit(
        self,
        slug: str,
        directory: TenantDirectory,
        catalog_engine: AsyncEngine,
        limit: Limit = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[EntryOut]:
        tenant = await directory.get(slug)
        return await list_entries(catalog_engine, Paging(limit, cursor), EntryFilter(), tenant_id=tenant.id)


@get(
    "/staff/v1/cells",
    opt=requires(Permission.STAFF_CELLS_READ),
    summary="Cells by name",
    tags=["Staff"],
    include_in_schema=False,
)
async def list_cells(registry: Registry) -> dict[str, list[CellSummary]]:
    return {"items": await registry.cells()}


@get(
    "/staff/v1/servers",
    opt=requires(Permission.STAFF_CELLS_READ),
    summary="Servers by name",
    tags=["Staff"],
    include_in_schema=False,
)
async def list_servers(registry: Registry) -> dict[str, list[ServerSummary]]:
    return {"items": await registry.servers()}


API: list[Any] = [TenantsApi, list_cells, list_servers]
