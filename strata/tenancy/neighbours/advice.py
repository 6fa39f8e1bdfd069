"""What to do about a tenant that loads its cell."""

from __future__ import annotations

import math
from typing import Any
from uuid import UUID

import msgspec

from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from strata.tenancy.neighbours.detector import Found, Verdict
from strata.tenancy.neighbours.tables import AdviceKind
from strata.tenancy.plans import plan_held

RATE = "api_rate_per_minute"
_LEAST_PER_MINUTE = 30


class NewAdvice(msgspec.Struct, frozen=True):
    tenant_id: UUID
    kind: AdviceKind
    subject: str
    why: str
    action: dict[str, Any]


def advise(found: Found, context: TenantContext, *, requests_per_minute: float) -> list[NewAdvice]:
    """For a noisy tenant: hold it back now, and give it a home where it hurts nobody."""
    if found.verdict not in {Verdict.NOISY, Verdict.HURTS_OTHERS}:
        return []
    what = f"It takes {found.share:.0%} of the cell's database time and keeps {found.load:.1f} connections busy"
    if found.verdict is Verdict.HURTS_OTHERS:
        what += f"; its neighbours' statements take {found.slower:.1f} times as long as usual"
    advice = [_throttle(what, context, requests_per_minute)] if requests_per_minute >= 1 else []
    return [*advice, *_move(what, context)]


def _throttle(what: str, context: TenantContext, requests_per_minute: float) -> NewAdvice:
    limit = context.limits.api_rate_per_minute
    asked = math.ceil(requests_per_minute)
    # Half of what it asks for now: below that the neighbours get most of the cell back, and it goes on working.
    to = max(_LEAST_PER_MINUTE, (min(asked, limit) if limit is not None else asked) // 2)
    allowed = "no limit" if limit is None else f"{limit} allowed"
    why = f"{what}. Hold it back to {to} requests a minute ({asked} now, {allowed}) until it has a home of its own."
    return NewAdvice(context.id, AdviceKind.THROTTLE, RATE, why, {"limit": RATE, "amount": to})


def _move(what: str, context: TenantContext) -> list[NewAdvice]:
    if context.placement.tier is Tier.DEDICATED:
        # Its neighbours are itself: what helps is another server or fewer rows to read.
        return []
    offered = plan_held(context.plan, context.plan_version).tiers
    if Tier.DEDICATED not in offered:
        return []
    why = (
        f"{what}. On {context.placement.tier.value} it shares the server's processes, memory and connections with them;"
        " a database of its own has a pool of its own, and can go to another server."
    )
    return [NewAdvice(context.id, AdviceKind.MOVE, Tier.DEDICATED, why, {"to": Tier.DEDICATED.value})]
