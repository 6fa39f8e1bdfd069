"""Which meters are drawn, and how they are called on pages."""

from __future__ import annotations

from strata.platform.web.charts import Chart, bar_chart, shown
from strata.tenancy.usage.meters import Meter
from strata.tenancy.usage.report import UsageReport

_DRAWN = (
    (Meter.API_CALLS, "API calls", ""),
    (Meter.REQUESTS, "Requests, pages included", ""),
    (Meter.COMPUTE_MS, "Compute time", "ms"),
    (Meter.DATABASE_MS, "Database time", "ms"),
    (Meter.BYTES_IN, "Received", "bytes"),
    (Meter.BYTES_OUT, "Sent", "bytes"),
    (Meter.STORAGE_BYTES, "Storage (estimate)", "bytes"),
    (Meter.ROWS, "Rows", ""),
    (Meter.ROWS_TOUCHED, "Rows read and written", ""),
    (Meter.REFUSED, "Refused at a limit", ""),
)


def charts_of(report: UsageReport) -> list[Chart]:
    return [
        bar_chart(meter.value, title, report.by_day(meter), unit=unit, total=report.total(meter))
        for meter, title, unit in _DRAWN
    ]


def other_totals(report: UsageReport) -> list[tuple[str, str]]:
    """What is not drawn: active users, and the meters that domains add."""
    drawn = {meter.value for meter, _, _ in _DRAWN}
    return [(line.meter.replace("-", " "), shown(line.amount, "")) for line in report.totals if line.meter not in drawn]


def grown(meter: str, amount: int) -> str:
    return shown(amount, next((unit for drawn, _, unit in _DRAWN if drawn == meter), ""))


CHOICES = [(meter.value, title) for meter, title, _ in _DRAWN]
