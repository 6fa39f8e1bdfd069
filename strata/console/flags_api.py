"""Feature flags for staff's programs: what `strata flag` does, over HTTP, on the console's host alone."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Controller, Response, delete, get, post, put
from litestar.params import HeaderParameter, QueryParameter
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.console.tenants import Reason, actor
from strata.identity.permissions import Permission, requires
from strata.platform.errors import NotFoundError
from strata.platform.etags import etag
from strata.platform.paging import DEFAULT_LIMIT, MAX_LIMIT, Page, Paging
from strata.platform.tokens import Claims
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.flags.desk import FlagDesk, FlagView, Override
from strata.tenancy.flags.dry_run import DryRun
from strata.tenancy.flags.history import FlagChange
from strata.tenancy.flags.holder import Flags
from strata.tenancy.flags.making import flag_from, segment_from
from strata.tenancy.flags.model import Flag, Segment
from strata.tenancy.flags.stale import StaleFlag, stale_flags
from strata.tenancy.flags.writing import NewOverride

Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)]
Days = Annotated[int, QueryParameter(ge=1, le=3650)]
Why = Annotated[str | None, QueryParameter(max_length=500)]
IfMatch = Annotated[str | None, HeaderParameter(name="If-Match")]

_READ = requires(Permission.STAFF_FLAGS_READ)
_TRY = requires(Permission.STAFF_FLAGS_READ, changes_nothing=True)
_WRITE = requires(Permission.STAFF_FLAGS_WRITE)


class Switch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    killed: bool
    reason: Reason | None = None


class Undo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: Reason | None = None


class Evaluated(msgspec.Struct, frozen=True):
    flag: str
    tenant: str
    variant: str
    value: Any
    reason: str
    detail: str


class FlagsApi(Controller):
    path = "/staff/v1/flags"
    tags = ("Staff",)
    # Tenants read the application's description on their own hosts; nothing of this concerns them.
    include_in_schema = False

    @get(opt=_READ, summary="Flags by key")
    async def list_flags(self, flag_desk: FlagDesk) -> dict[str, list[FlagView]]:
        return {"items": await flag_desk.every()}

    @get("/{key:str}", opt=_READ, summary="One flag")
    async def get_flag(self, key: str, flag_desk: FlagDesk) -> Response[FlagView]:
        return _tagged(await flag_desk.get(key))

    @put("/{key:str}", opt=_WRITE, summary="Make a flag, or replace its document; the same again changes nothing")
    async def put_flag(
        self,
        key: str,
        data: dict[str, Any],
        flag_desk: FlagDesk,
        claims: Claims,
        if_match: IfMatch = None,
        reason: Why = None,
    ) -> Response[FlagView]:
        flag = flag_from(key, data, await _before(flag_desk, key))
        return _tagged(await flag_desk.put(flag, actor(claims), reason=reason, if_match=if_match))

    @delete("/{key:str}", opt=_WRITE, summary="Take a flag away; undo brings it back")
    async def delete_flag(self, key: str, flag_desk: FlagDesk, claims: Claims, reason: Why = None) -> None:
        await flag_desk.delete(key, actor(claims), reason=reason)

    @post("/{key:str}/dry-run", opt=_TRY, summary="Which tenants putting this document would change", status_code=200)
    async def try_flag(self, key: str, data: dict[str, Any], flag_desk: FlagDesk) -> DryRun:
        return await flag_desk.try_flag(flag_from(key, data, await _before(flag_desk, key)), key)

    @post("/{key:str}/kill", opt=_WRITE, summary="Off for everybody, or back", status_code=200)
    async def kill(self, key: str, data: Switch, flag_desk: FlagDesk, claims: Claims) -> FlagView:
        return await flag_desk.kill(key, actor(claims), killed=data.killed, reason=data.reason)

    @get("/{key:str}/overrides", opt=_READ, summary="Tenants for whom it is set by hand")
    async def list_overrides(self, key: str, flag_desk: FlagDesk) -> dict[str, list[Override]]:
        return {"items": await flag_desk.overrides(key)}

    @put("/{key:str}/overrides/{slug:str}", opt=_WRITE, summary="Set a tenant's variant by hand", status_code=204)
    async def set_override(self, key: str, slug: str, data: NewOverride, flag_desk: FlagDesk, claims: Claims) -> None:
        await flag_desk.set_override(key, slug, data, actor(claims))

    @delete("/{key:str}/overrides/{slug:str}", opt=_WRITE, summary="What the flag gives by itself")
    async def end_override(self, key: str, slug: str, flag_desk: FlagDesk, claims: Claims, reason: Why = None) -> None:
        await flag_desk.set_override(key, slug, None, actor(claims), reason or "")

    @get("/{key:str}/evaluation", opt=_READ, summary="What a tenant gets, and why")
    async def evaluate(self, key: str, tenant: str, flags: Flags, contexts: ContextCache) -> Evaluated:
        found = flags.evaluate(key, await contexts.get_by_slug(tenant))
        return Evaluated(key, tenant, found.variant, found.value, found.reason, found.detail)

    @get("/{key:str}/history", opt=_READ, summary="What was done to it, newest first")
    async def history(
        self, key: str, flag_desk: FlagDesk, limit: Limit = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[FlagChange]:
        return await flag_desk.history(key, Paging(limit, cursor))

    @post("/{key:str}/undo", opt=_WRITE, summary="Take the last change back", status_code=200)
    async def undo(self, key: str, data: Undo, flag_desk: FlagDesk, claims: Claims) -> FlagChange:
        return await flag_desk.undo(key, actor(claims), reason=data.reason)

    @post("/{key:str}/undo/dry-run", opt=_TRY, summary="Which tenants an undo would change", status_code=200)
    async def try_undo(self, key: str, flag_desk: FlagDesk) -> DryRun:
        return await flag_desk.try_undo(key)


class SegmentsApi(Controller):
    path = "/staff/v1/flag-segments"
    tags = ("Staff",)
    include_in_schema = False

    @get(opt=_READ, summary="Segments by name")
    async def list_segments(self, flag_desk: FlagDesk) -> dict[str, list[Segment]]:
        return {"items": await flag_desk.segments()}

    @put("/{name:str}", opt=_WRITE, summary="Make a segment, or replace it")
    async def put_segment(
        self, name: str, data: dict[str, Any], flag_desk: FlagDesk, claims: Claims, reason: Why = None
    ) -> Segment:
        return await flag_desk.put_segment(segment_from(name, data), actor(claims), reason=reason)

    @post("/{name:str}/dry-run", opt=_TRY, summary="Which tenants this would change", status_code=200)
    async def try_segment(self, name: str, data: dict[str, Any], flag_desk: FlagDesk) -> DryRun:
        return await flag_desk.try_segment(segment_from(name, data))

    @delete("/{name:str}", opt=_WRITE, summary="Take away a segment that no flag uses")
    async def delete_segment(self, name: str, flag_desk: FlagDesk, claims: Claims, reason: Why = None) -> None:
        await flag_desk.delete_segment(name, actor(claims), reason=reason)


@get(
    "/staff/v1/stale-flags",
    opt=_READ,
    summary="Flags that have done their work",
    tags=["Staff"],
    include_in_schema=False,
)
async def list_stale_flags(catalog_engine: AsyncEngine, days: Days = 30) -> dict[str, list[StaleFlag]]:
    return {"items": await stale_flags(catalog_engine, days)}


async def _before(flag_desk: FlagDesk, key: str) -> Flag | None:
    try:
        return (await flag_desk.get(key)).flag
    except NotFoundError:
        return None


def _tagged(view: FlagView) -> Response[FlagView]:
    return Response(view, headers={"ETag": etag(view.version)})


API: list[Any] = [FlagsApi, SegmentsApi, list_stale_flags]
