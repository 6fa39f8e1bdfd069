"""What a tenant has used, for the tenant's own people: by API, as a file, on a page with charts."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, Response, Router, get
from litestar.params import QueryParameter

from strata.account.surroundings import PAGES, frame_for, tabs_for
from strata.identity.permissions import Permission, requires
from strata.inventory.request_parameters import API_PREFIX
from strata.platform.http.query import refuse_unknown_parameters
from strata.platform.tokens import Claims
from strata.tenancy.context import TenantContext
from strata.tenancy.usage.book import UsageBook
from strata.tenancy.usage.charts import charts_of, other_totals
from strata.tenancy.usage.report import UsageReport, checked_period, csv_headers, csv_of, report_of

Period = Annotated[
    str | None,
    QueryParameter(required=False, max_length=20, description="A month in UTC, as 2026-03; absent: this one."),
]


class UsageController(Controller):
    path = "/usage"
    tags = ("Usage",)

    @get("/", summary="What was used in a month, in all and by day", opt=requires(Permission.USAGE_READ))
    async def get_usage(self, context: TenantContext, usage: UsageBook, period: Period = None) -> UsageReport:
        """Counted within seconds; storage and rows once a day. Amounts are in the unit that ends the meter's name."""
        return await report_of(usage, context.id, checked_period(period))

    @get("/export", summary="The same as a CSV file", opt=requires(Permission.USAGE_READ))
    async def export(self, context: TenantContext, usage: UsageBook, period: Period = None) -> Response[str]:
        report = await report_of(usage, context.id, checked_period(period))
        return Response(csv_of(report), media_type="text/csv", headers=csv_headers(context.slug, report))


@get("/account/usage", opt=requires(Permission.USAGE_READ), include_in_schema=False)
async def usage_page(
    request: Request[Any, Any, Any], context: TenantContext, usage: UsageBook, claims: Claims, period: str = ""
) -> Response[str]:
    report = await report_of(usage, context.id, checked_period(period))
    return PAGES.page(
        "account/usage.html",
        request,
        frame_for(context, claims),
        tabs=tabs_for(claims),
        period=report.period,
        charts=charts_of(report),
        others=other_totals(report),
        export=f"{API_PREFIX}/usage/export",
    )


ROUTES = [
    Router(API_PREFIX, route_handlers=[UsageController], before_request=refuse_unknown_parameters),
    usage_page,
]
