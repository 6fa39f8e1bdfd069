from __future__ import annotations

from datetime import date, timedelta

from strata.platform.ids import new_id
from strata.runtime import Runtime
from strata.tenancy.model import Tier
from strata.tenancy.usage.book import Batch, today
from tests.builders.command import Command
from tests.builders.platform import Tenantry


async def test_the_command_shows_a_month_and_who_grows(runtime: Runtime, tenant_on: Tenantry, strata: Command) -> None:
    context = await tenant_on(Tier.SHARED)
    for day in (date(2026, 3, 5), today() - timedelta(days=1)):
        await runtime.usage.count(Batch(new_id(), day, {(context.id, "refused"): 10**9}, frozenset()))
    shown = await strata("usage", context.slug, "--period", "2026-03", "--days")
    assert "refused" in shown.out
    assert "2026-03-05" in shown.out
    report = await strata.json("usage", context.slug, "--period", "2026-03")
    assert [(line["meter"], line["amount"]) for line in report["totals"]] == [("refused", 10**9)]
    assert (await strata("usage", context.slug, "--period", "2026-03", "--csv")).out.startswith("period,day,meter")
    growth = (await strata.json("usage", "--growth", "refused"))["growth"]
    assert context.slug in {each["slug"] for each in growth}
    refused = await strata("usage", "--json")
    assert (refused.code, refused.error["code"]) == (1, "nobody-named")
