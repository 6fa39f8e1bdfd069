"""What /metrics shows of the limits."""

from __future__ import annotations

from strata.platform.readings import Reading
from strata.tenancy.limits.concurrency import Concurrency
from strata.tenancy.limits.rates import RateLimiter


def readings(rates: RateLimiter, concurrency: Concurrency) -> tuple[Reading, ...]:
    counted = rates.statistics
    return (
        Reading(
            "rate_limit_decisions",
            "Requests by what decided: a token of the common bucket, this process's own share, or neither (refused).",
            lambda: {
                "lease": counted.by_lease,
                "own_share": counted.by_own_share,
                "refused": counted.refused,
            },
            label="by",
        ),
        Reading("rate_limit_refills", "Round trips to Redis for tokens.", lambda: counted.refills),
        Reading("rate_limit_unanswered", "Those that were not answered in time.", lambda: counted.unanswered),
        Reading(
            "rate_limit_alone",
            "1 while this process decides by its own share.",
            lambda: float(rates.alone),
            counter=False,
        ),
        Reading(
            "rate_limit_processes",
            "Processes among which limits are shared.",
            lambda: rates.presence.processes,
            counter=False,
        ),
        Reading(
            "concurrency_over_limit",
            "Requests above a tenant's limit of requests at once: queued, let through after the wait, refused.",
            lambda: {
                "queued": concurrency.queued,
                "let_through": concurrency.let_through,
                "refused": concurrency.refused,
            },
            label="outcome",
        ),
        Reading(
            "concurrency_waiting", "Requests that wait for their turn.", lambda: concurrency.waiting, counter=False
        ),
    )
