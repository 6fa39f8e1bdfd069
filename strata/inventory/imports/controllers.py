from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, get, post
from litestar.params import QueryParameter

from strata.identity.permissions import Permission, requires
from strata.inventory.imports import repository
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.mapping import packaged, packaged_names
from strata.inventory.imports.runner import ImportRunner
from strata.inventory.imports.schemas import ImportOptions, ImportSummary, RefusalOut, RunOut
from strata.inventory.imports.uploads import spooled
from strata.inventory.request_parameters import API_PREFIX, CursorParameter, LimitParameter, TextParameter
from strata.platform.paging import DEFAULT_LIMIT, Page, Paging
from strata.platform.settings import HttpSettings
from strata.platform.tokens import Claims
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

MappingName = Annotated[
    str,
    QueryParameter(
        name="mapping",
        max_length=64,
        pattern=r"^[a-z0-9-]+$",
        description=f"How the file is read: {', '.join(packaged_names())}.",
    ),
]
FileName = Annotated[
    str,
    QueryParameter(
        max_length=255,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="What the file is called; becomes the reference of opening stock.",
    ),
]


class ImportController(Controller):
    path = "/imports"
    tags = ("Imports",)

    # The body is counted as it is spooled; Litestar's own limit is for documents.
    @post(
        "/",
        summary="Import a file",
        opt=requires(Permission.IMPORTS_WRITE),
        status_code=201,
        request_max_body_size=None,
    )
    async def import_upload(
        self,
        request: Request[Any, Any, Any],
        context: TenantContext,
        tenants: Tenants,
        claims: Claims,
        http_settings: HttpSettings,
        mapping: MappingName,
        opening_stock: bool = False,
        again: bool = False,
        file_name: FileName = "upload",
    ) -> Response[ImportSummary]:
        """Send the file itself as the body: CSV, plain or packed with gzip. The answer comes when it is imported.

        Cut off half way, send the same file again: it goes on where it was. A file that was imported before changes
        nothing (200). Refused rows are no failure; they are listed under `refusals`.
        """
        chosen = packaged(mapping)
        async with spooled(request.stream(), http_settings.max_upload_bytes) as path:
            summary = await ImportRunner(tenants, context).run(
                SourceFile(path, file_name),
                chosen,
                ImportOptions(opening_stock=opening_stock),
                actor=claims.sub,
                again=again,
            )
        return Response(
            summary,
            status_code=200 if summary.nothing_to_do else 201,
            headers={"Location": f"{API_PREFIX}/imports/{summary.run.id}"},
        )

    @get("/", summary="List imports, the newest first", opt=requires(Permission.IMPORTS_READ))
    async def list_imports(
        self,
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
    ) -> Page[RunOut]:
        async with tenants.reading(context) as session:
            return await repository.list_runs(session, Paging(limit, cursor))

    @get("/{import_id:uuid}", summary="One import, as far as it has come", opt=requires(Permission.IMPORTS_READ))
    async def get_import(self, context: TenantContext, tenants: Tenants, import_id: UUID) -> RunOut:
        async with tenants.reading(context) as session:
            return await repository.run_by_id(session, import_id)

    @get(
        "/{import_id:uuid}/refusals", summary="Rows that were not taken, and why", opt=requires(Permission.IMPORTS_READ)
    )
    async def list_refusals(
        self,
        context: TenantContext,
        tenants: Tenants,
        import_id: UUID,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        code: TextParameter = None,
    ) -> Page[RefusalOut]:
        async with tenants.reading(context) as session:
            await repository.run_by_id(session, import_id)
            return await repository.list_refusals(session, import_id, Paging(limit, cursor), code=code)
