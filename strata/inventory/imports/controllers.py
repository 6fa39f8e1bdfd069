from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from litestar import Controller, Request, Response, get, post
from litestar.params import QueryParameter
from openfeature.client import OpenFeatureClient

from strata.identity.permissions import Permission, requires
from strata.inventory.idempotency import REPLAYED, IdempotencyKeyHeader, once, request_key
from strata.inventory.imports import queueing, repository
from strata.inventory.imports.custom_columns import PREFIXES, with_columns
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.flags import refuse_while_paused
from strata.inventory.imports.mapping import packaged, packaged_names
from strata.inventory.imports.models import ImportState
from strata.inventory.imports.schemas import ImportOptions, RefusalOut, RunOut, UploadKey
from strata.inventory.imports.uploads import spooled
from strata.inventory.request_parameters import (
    API_PREFIX,
    CursorParameter,
    FieldsParameter,
    IfNoneMatchHeader,
    LimitParameter,
    TextParameter,
)
from strata.inventory.resources import Resource
from strata.platform.http.query import open_parameters
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
_IMPORTS = Resource("imports", RunOut)
_REFUSALS = Resource("refusals", RefusalOut)


class ImportController(Controller):
    path = "/imports"
    tags = ("Imports",)

    # The body is counted as it is spooled; Litestar's own limit is for documents.
    @post(
        "/",
        summary="Upload a file to be imported",
        opt=requires(Permission.IMPORTS_WRITE) | open_parameters(*PREFIXES),
        status_code=202,
        request_max_body_size=None,
    )
    async def upload(
        self,
        request: Request[Any, Any, Any],
        context: TenantContext,
        tenants: Tenants,
        claims: Claims,
        http_settings: HttpSettings,
        flag_client: OpenFeatureClient,
        mapping: MappingName,
        opening_stock: bool = False,
        again: bool = False,
        file_name: FileName = "upload",
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> Response[RunOut]:
        """Send the file itself as the body: CSV, plain or packed with gzip. Workers import it; the answer is 202, and
        its Location shows how far they are.

        A file that is queued already is not queued twice, and one that was imported before changes nothing (200).
        Refused rows are no failure; they are listed under `refusals`. Custom fields: `product.custom.colour=Colour` and
        `movement.custom.carrier=Carrier` name the columns that their values stand in.
        """
        refuse_while_paused(flag_client, context)
        chosen = with_columns(packaged(mapping), request.query_params.items())
        async with spooled(request.stream(), http_settings.max_upload_bytes) as path:
            order = await queueing.look_at(
                SourceFile(path, file_name, http_settings.max_unpacked_bytes),
                chosen,
                ImportOptions(opening_stock=opening_stock),
            )
            uploaded = UploadKey(order.key.file_digest.hex(), order.key.mapping, order.key.options, again, file_name)
            key = request_key(idempotency_key, "POST /imports", uploaded)
            limit_mb = context.limits.storage_mb
            async with tenants.transaction(context) as session:

                async def accept() -> RunOut:
                    return await queueing.accept(
                        session, order, actor=claims.sub, storage_limit_mb=limit_mb, again=again
                    )

                run, replayed = await once(session, key, RunOut, accept)
        headers = {"Location": f"{API_PREFIX}/imports/{run.id}", **(REPLAYED if replayed else {})}
        return _IMPORTS.written(run, status=200 if run.state is ImportState.DONE else 202, headers=headers)

    @get("/", summary="List imports, the newest first", opt=requires(Permission.IMPORTS_READ))
    async def list_imports(
        self,
        context: TenantContext,
        tenants: Tenants,
        limit: LimitParameter = DEFAULT_LIMIT,
        cursor: CursorParameter = None,
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[Page[RunOut]]:
        async with tenants.reading(context) as session:
            page = await repository.list_runs(session, Paging(limit, cursor, fields))
        return _IMPORTS.page(page, if_none_match)

    @get("/{import_id:uuid}", summary="One import, as far as it has come", opt=requires(Permission.IMPORTS_READ))
    async def get_import(
        self,
        context: TenantContext,
        tenants: Tenants,
        import_id: UUID,
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[RunOut]:
        async with tenants.reading(context) as session:
            run = await repository.run_by_id(session, import_id)
        return _IMPORTS.read(run, fields, if_none_match)

    @post(
        "/{import_id:uuid}/cancel",
        summary="Stop an import; what is posted stays",
        opt=requires(Permission.IMPORTS_WRITE),
        status_code=200,
    )
    async def cancel(self, context: TenantContext, tenants: Tenants, import_id: UUID) -> Response[RunOut]:
        """Once this is answered, nothing more of it is posted. Upload the same file again to go on where it was."""
        async with tenants.transaction(context) as session:
            run = await queueing.cancel(session, import_id)
        return _IMPORTS.written(run)

    @post(
        "/{import_id:uuid}/resume",
        summary="Go on with an import that failed",
        opt=requires(Permission.IMPORTS_WRITE),
        status_code=202,
    )
    async def resume(self, context: TenantContext, tenants: Tenants, import_id: UUID) -> Response[RunOut]:
        async with tenants.transaction(context) as session:
            run = await queueing.resume(session, import_id)
        return _IMPORTS.written(run, status=202)

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
        fields: FieldsParameter = None,
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[Page[RefusalOut]]:
        async with tenants.reading(context) as session:
            await repository.run_by_id(session, import_id)
            page = await repository.list_refusals(session, import_id, Paging(limit, cursor, fields), code=code)
        return _REFUSALS.page(page, if_none_match)
