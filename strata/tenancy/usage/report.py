"""Usage of one tenant in one month, as people and programs are shown it."""

from __future__ import annotations

import calendar
import csv
import io
import re
from datetime import date
from uuid import UUID

import msgspec

from strata.platform.errors import InvalidInputError
from strata.tenancy.usage.book import DayLine, UsageBook, UsageLine, period_of, today

_PERIOD = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


class UsageReport(msgspec.Struct, frozen=True):
    period: str
    """A month in UTC."""
    totals: list[UsageLine]
    days: list[DayLine]
    """By meter only what can be told by day: active users are counted by the month."""

    def total(self, meter: str) -> int:
        return next((line.amount for line in self.totals if line.meter == meter), 0)

    def by_day(self, meter: str) -> list[tuple[date, int]]:
        """Every day of the month, in order; nothing counted is 0."""
        year, month = (int(part) for part in self.period.split("-"))
        amounts = {line.day: line.amount for line in self.days if line.meter == meter}
        days = (date(year, month, number) for number in range(1, calendar.monthrange(year, month)[1] + 1))
        return [(day, amounts.get(day, 0)) for day in days]


def checked_period(period: str | None) -> str:
    """The month asked for; None: this one."""
    if not period:
        return period_of(today())
    if not _PERIOD.fullmatch(period):
        detail = f"«{period[:20]}» is no month; write it as 2026-03."
        raise InvalidInputError(detail, extra={"errors": [{"path": "/period", "message": detail, "in": "query"}]})
    return period


async def report_of(book: UsageBook, tenant_id: UUID, period: str) -> UsageReport:
    year, month = (int(part) for part in period.split("-"))
    since, until = date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])
    return UsageReport(period, await book.months(tenant_id, period), await book.days(tenant_id, since, until))


def csv_of(report: UsageReport) -> str:
    """A line for each meter of the month (its day is empty), then a line for each of each day."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow(("period", "day", "meter", "amount"))
    writer.writerows((line.period, "", line.meter, line.amount) for line in report.totals)
    writer.writerows((report.period, line.day.isoformat(), line.meter, line.amount) for line in report.days)
    return written.getvalue()


def csv_headers(slug: str, report: UsageReport) -> dict[str, str]:
    name = f"usage-{slug}-{report.period}.csv"
    return {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
