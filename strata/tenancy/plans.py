"""The plan catalogue, read once from plans.toml beside this file."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import msgspec

from strata.platform.errors import InvalidInputError
from strata.tenancy.model import Tier


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The most a tenant may have of each; None: no limit."""

    users: int | None = None
    skus: int | None = None
    locations: int | None = None
    storage_mb: int | None = None
    api_rate_per_minute: int | None = None


class JobPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a tenant's background jobs are treated."""

    concurrency: int = 2
    """The most that run at once, over all workers."""
    attempts: int = 5
    lane: str | None = None
    """Queues of the plan's own (`bulk@<lane>`), which can be given workers of their own; None: the common ones."""


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    rank: int
    tiers: tuple[Tier, ...]
    """Offered to tenants on this plan, the default first."""
    features: frozenset[str]
    limits: Limits
    jobs: JobPolicy = JobPolicy()


@cache
def plans() -> dict[str, Plan]:
    document = tomllib.loads(Path(__file__).with_name("plans.toml").read_text(encoding="utf-8"))
    return {
        name: msgspec.convert({"name": name, **body}, Plan)
        for name, body in sorted(document.items(), key=lambda item: int(item[1]["rank"]))
    }


def plan_named(name: str) -> Plan:
    try:
        return plans()[name]
    except KeyError:
        detail = f"There is no plan «{name}»; the plans are {', '.join(plans())}."
        raise InvalidInputError(detail, extra={"errors": [{"path": "/plan", "message": detail}]}) from None
