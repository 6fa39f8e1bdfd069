"""The plan catalogue, read once from plans.toml beside this file: ranked plans in versions, and add-ons.

A tenant is on one version of one plan. What that gives it: the version's limits, tiers and retention; and its features
together with those of every later version, so that an addition reaches all who have the plan.
"""

from __future__ import annotations

import hashlib
import tomllib
from functools import cache
from pathlib import Path

import msgspec

from strata.platform.errors import ConfigurationError, InvalidInputError
from strata.tenancy.model import Tier

_FILE = Path(__file__).with_name("plans.toml")


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The most a tenant may have of each; None: no limit."""

    users: int | None = None
    skus: int | None = None
    locations: int | None = None
    storage_mb: int | None = None
    api_rate_per_minute: int | None = None
    api_rate_per_key_per_minute: int | None = None
    """Of one key: one subject that tokens are made for."""
    concurrent_requests_soft: int | None = None
    """Beyond it, requests queue."""
    concurrent_requests: int | None = None
    """Beyond it, they are refused."""


class JobPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a tenant's background jobs are treated."""

    concurrency: int = 2
    """The most that run at once, over all workers."""
    attempts: int = 5
    lane: str | None = None
    """Queues of the plan's own (`bulk@<lane>`), which can be given workers of their own; None: the common ones."""


class Retention(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How long things are kept for a tenant; None: until it deletes them."""

    import_refusals_days: int | None = None
    """Lines that an import refused, counted from its end."""


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version of a plan, with what later versions added to it."""

    name: str
    version: int
    rank: int
    tiers: tuple[Tier, ...]
    """Offered to tenants on this plan, the default first."""
    features: frozenset[str]
    limits: Limits
    retention: Retention
    jobs: JobPolicy = JobPolicy()


class AddOn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one piece of it brings on top of a plan."""

    features: frozenset[str] = frozenset()
    limits: dict[str, int] = {}


class _Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    tiers: tuple[Tier, ...]
    features: frozenset[str]
    limits: Limits
    retention: Retention


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rank: int
    versions: list[_Version]
    jobs: JobPolicy = JobPolicy()

    def plans(self, name: str) -> list[Plan]:
        """Oldest first."""
        if [each.version for each in self.versions] != list(range(1, len(self.versions) + 1)):
            message = f"plans.toml: the versions of «{name}» must be numbered 1, 2, 3 and stand in that order."
            raise ConfigurationError(message)
        return [
            Plan(
                name=name,
                rank=self.rank,
                jobs=self.jobs,
                version=each.version,
                tiers=each.tiers,
                features=frozenset().union(*(later.features for later in self.versions[number:])),
                limits=each.limits,
                retention=each.retention,
            )
            for number, each in enumerate(self.versions)
        ]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    plans: dict[str, _Line]
    add_ons: dict[str, AddOn] = msgspec.field(default_factory=dict, name="add-ons")


class PlanCatalogue:
    """Everything that is, or ever was, sold."""

    def __init__(self, text: str) -> None:
        document = msgspec.convert(tomllib.loads(text), _Document)
        ranked = sorted(document.plans.items(), key=lambda item: item[1].rank)
        self.versions = {name: line.plans(name) for name, line in ranked}
        self.add_ons = document.add_ons
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        """Names the content: a context computed from another catalogue is out of date."""
        for name, add_on in self.add_ons.items():
            if unknown := sorted(set(add_on.limits) - set(Limits.__struct_fields__)):
                message = f"plans.toml: add-on «{name}» raises {unknown[0]}, which is no limit."
                raise ConfigurationError(message)

    def newest(self, name: str) -> Plan:
        return self._versions(name)[-1]

    def held(self, name: str, version: int) -> Plan:
        """What a tenant that bought this version has."""
        versions = self._versions(name)
        if not 1 <= version <= len(versions):
            raise _invalid("/version", f"Plan «{name}» has no version {version}; the newest is {len(versions)}.")
        return versions[version - 1]

    def add_on(self, name: str) -> AddOn:
        try:
            return self.add_ons[name]
        except KeyError:
            known = ", ".join(sorted(self.add_ons))
            raise _invalid("/name", f"There is no add-on «{name}»; there are {known}.") from None

    def features(self) -> frozenset[str]:
        """Every feature that any plan or add-on gives."""
        of_plans = (plan.features for versions in self.versions.values() for plan in versions)
        return frozenset().union(*of_plans, *(add_on.features for add_on in self.add_ons.values()))

    def _versions(self, name: str) -> list[Plan]:
        try:
            return self.versions[name]
        except KeyError:
            known = ", ".join(self.versions)
            raise _invalid("/plan", f"There is no plan «{name}»; the plans are {known}.") from None


@cache
def catalogue() -> PlanCatalogue:
    return PlanCatalogue(_FILE.read_text(encoding="utf-8"))


@cache
def plans() -> dict[str, Plan]:
    """The newest version of each plan, by rank."""
    return {name: versions[-1] for name, versions in catalogue().versions.items()}


def plan_named(name: str) -> Plan:
    """Its newest version; InvalidInputError."""
    return catalogue().newest(name)


def plan_held(name: str, version: int) -> Plan:
    """The version a tenant bought, with later additions; InvalidInputError."""
    return catalogue().held(name, version)


def _invalid(path: str, detail: str) -> InvalidInputError:
    return InvalidInputError(detail, extra={"errors": [{"path": path, "message": detail}]})
