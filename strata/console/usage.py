"""Usage for the staff: one tenant's months, and who grows fastest."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.params import QueryParameter

from strata.console.surroundings import PAGES, frame_for
from strata.identity.permissions import Permission, requires
from strata.platform.errors import InvalidInputError
from strata.platform.tokens import Claims
from strata.tenancy.catalog.tenants import TenantDirectory
from strata.tenancy.usage.book import Growth, UsageBook, today
from strata.tenancy.usage.charts import CHOICES, charts_of, grown, other_totals
from strata.tenancy.usage.meters import Meter
from strata.tenancy.usage.report import UsageReport, checked_period, csv_headers, csv_of, report_of

_OF_TENANT = "/staff/v1/tenants/{slug:str}/usage"
_READS = requires(Permission.STAFF_TENANTS_READ)

Period = Annotated[str | None, QueryParameter(required=False, max_length=20)]


@get(_OF_TENANT, opt=_READS, summary="What a tenant used in a month", tags=["Staff"], include_in_schema=False)
async def get_usage(slug: str, directory: TenantDirectory, usage: UsageBook, period: Period = None) -> UsageReport:
    return await report_of(usage, (await directory.get(slug)).id, checked_period(period))


@get(f"{_OF_TENANT}/export", opt=_READS, summary="The same as CSV", tags=["Staff"], include_in_schema=False)
async def export_usage(slug: str, directory: TenantDirectory, usage: UsageBook, period: Period = None) -> Response[str]:
    report = await report_of(usage, (await directory.get(slug)).id, checked_period(period))
    return Response(csv_of(report), media_type="text/csv", headers=csv_headers(slug, report))


@get("/staff/v1/usage/growth", opt=_READS, summary="Who grows fastest", tags=["Staff"], include_in_schema=False)
async def get_growth(usage: UsageBook, meter: str = Meter.API_CALLS, limit: int = 20) -> dict[str, list[Growth]]:
    return {"items": await usage.growth(_known(meter), today(), limit=min(max(limit, 1), 100))}


@get("/tenants/{slug:str}/usage", opt=_READS, include_in_schema=False)
async def usage_page(
    request: Request[Any, Any, Any],
    slug: str,
    directory: TenantDirectory,
    usage: UsageBook,
    claims: Claims,
    period: str = "",
) -> Response[str]:
    tenant = await directory.get(slug)
    report = await report_of(usage, tenant.id, checked_period(period))
    return PAGES.page(
        "console/usage.html",
        request,
        frame_for(claims),
        tenant=tenant,
        period=report.period,
        charts=charts_of(report),
        others=other_totals(report),
        export=f"/staff/v1/tenants/{slug}/usage/export",
    )


@get("/usage", opt=_READS, include_in_schema=False)
async def growth_page(
    request: Request[Any, Any, Any], usage: UsageBook, claims: Claims, meter: str = Meter.API_CALLS
) -> Response[str]:
    found = await usage.growth(_known(meter), today())
    return PAGES.page(
        "console/growth.html",
        request,
        frame_for(claims),
        rows=[(each, grown(meter, each.before), grown(meter, each.now)) for each in found],
        meter=meter,
        choices=CHOICES,
    )


def _known(meter: str) -> str:
    known = [value for value, _ in CHOICES]
    if meter not in known:
        detail = f"Growth is known of {', '.join(known)}."
        raise InvalidInputError(detail, extra={"errors": [{"path": "/meter", "message": detail, "in": "query"}]})
    return meter


ROUTES = [get_usage, export_usage, get_growth, usage_page, growth_page]
