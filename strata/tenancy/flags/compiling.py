"""A flag compiled: the steps it needs, each a function that gives an outcome or passes on, and every outcome made ahead.

Evaluating allocates nothing but what a condition compares, asks nobody, and counts by adding one to the outcome.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from strata.tenancy.context import TenantContext
from strata.tenancy.flags.conditions import Test, User, compile_all, invalid
from strata.tenancy.flags.hashing import HASH_VERSIONS, Bucket, bucket_of
from strata.tenancy.flags.model import EVERYBODY, Flag, Reason, Rule, Segment
from strata.tenancy.plans import plan_named, plans

Now = Callable[[], datetime]


class Outcome:
    """What an evaluation gives: the variant, its payload, and why. Shared by all who get it; `count` is its only change."""

    __slots__ = ("count", "detail", "flag", "is_on", "reason", "value", "variant")

    def __init__(self, flag: str, variant: str, value: Any, reason: Reason, detail: str = "") -> None:  # noqa: ANN401 - JSON
        self.flag = flag
        self.variant = variant
        self.value = value
        self.reason = reason
        self.detail = detail
        self.is_on = bool(value)
        self.count = 0


Step = Callable[[TenantContext, User], Outcome | None]
Choose = Callable[[TenantContext], Outcome]


class CompiledFlag:
    __slots__ = ("_steps", "flag", "outcomes")

    def __init__(self, flag: Flag, steps: Sequence[Step], outcomes: Sequence[Outcome]) -> None:
        self.flag = flag
        self._steps = tuple(steps)
        self.outcomes = outcomes

    def __call__(self, context: TenantContext, user: User) -> Outcome:
        for step in self._steps:
            outcome = step(context, user)
            if outcome is not None:
                outcome.count += 1
                return outcome
        raise AssertionError(self.flag.key)  # the last step always gives one


class Compiler:
    """Compiles one flag, given the segments and the flags that may be its prerequisites. Raises InvalidInputError."""

    def __init__(
        self, flag: Flag, segments: Mapping[str, Test], others: Mapping[str, CompiledFlag], now: Now | None = None
    ) -> None:
        self._flag = flag
        self._segments = segments
        self._others = others
        self._now = now or _now
        self._outcomes: list[Outcome] = []

    def compile(self) -> CompiledFlag:
        self._check()
        return CompiledFlag(self._flag, list(self._steps()), self._outcomes)

    def _steps(self) -> Iterator[Step]:
        flag = self._flag
        if flag.killed:
            killed = self._outcome(flag.off, Reason.KILLED, "switched off by staff")
            yield lambda _context, _user: killed
            return
        yield self._override()
        yield from self._schedule()
        if flag.plan_minimum is not None:
            yield self._plan(flag.plan_minimum)
        for prerequisite in flag.prerequisites:
            yield self._prerequisite(prerequisite.flag, frozenset(prerequisite.variants))
        for number, rule in enumerate(flag.rules):
            yield self._rule(rule, f"/rules/{number}")
        if flag.rollout:
            yield self._rollout()
        default = self._outcome(flag.default, Reason.DEFAULT)
        yield lambda _context, _user: default

    def _override(self) -> Step:
        key = self._flag.key
        by_variant = {name: self._outcome(name, Reason.OVERRIDE, "set for this tenant") for name in self._flag.variants}

        def step(context: TenantContext, _user: User) -> Outcome | None:
            variants = context.flag_overrides.variants
            # A variant that is no more counts for nothing.
            return by_variant.get(variants[key]) if key in variants else None

        return step

    def _schedule(self) -> Iterator[Step]:
        starts, ends, now = self._flag.starts_at, self._flag.ends_at, self._now
        if starts is not None:
            early = self._outcome(self._flag.off, Reason.NOT_YET, f"from {starts.isoformat()} on")
            yield lambda _context, _user: early if now() < starts else None
        if ends is not None:
            late = self._outcome(self._flag.off, Reason.ENDED, f"until {ends.isoformat()}")
            yield lambda _context, _user: late if now() >= ends else None

    def _plan(self, minimum: str) -> Step:
        rank = plan_named(minimum).rank
        enough = frozenset(plan.name for plan in plans().values() if plan.rank >= rank)
        below = self._outcome(self._flag.off, Reason.PLAN, f"from plan {minimum} on")
        return lambda context, _user: None if context.plan in enough else below

    def _prerequisite(self, key: str, variants: frozenset[str]) -> Step:
        other = self._others[key]
        unmet = self._outcome(self._flag.off, Reason.PREREQUISITE, f"needs {key} to be {' or '.join(sorted(variants))}")
        return lambda context, user: None if other(context, user).variant in variants else unmet

    def _rule(self, rule: Rule, path: str) -> Step:
        holds = compile_all(rule.when, self._segments, f"{path}/when")
        choose = self._choice(rule.serve, rule.split, Reason.RULE, rule.name)
        if rule.rollout == EVERYBODY:
            return lambda context, user: choose(context) if holds(context, user) else None
        bucket, share = self._bucket(), rule.rollout
        return lambda context, user: choose(context) if holds(context, user) and bucket(context.id) < share else None

    def _rollout(self) -> Step:
        share, bucket = self._flag.rollout, self._bucket()
        choose = self._choice(self._flag.on, self._flag.split, Reason.ROLLOUT, f"within {share / 100:g} %")
        if share == EVERYBODY:
            return lambda context, _user: choose(context)
        return lambda context, _user: choose(context) if bucket(context.id) < share else None

    def _choice(self, variant: str | None, split: Mapping[str, int] | None, reason: Reason, detail: str) -> Choose:
        if split is None:
            only = self._outcome(variant or self._flag.on, reason, detail)
            return lambda _context: only
        parts = [(name, share) for name, share in sorted(split.items()) if share]
        outcomes = [self._outcome(name, reason, detail) for name, _ in parts]
        ends = list(accumulate(share for _, share in parts))
        bucket = bucket_of(self._flag.variant_seed, self._flag.key)
        return lambda context: outcomes[bisect_right(ends, bucket(context.id))]

    def _bucket(self) -> Bucket:
        return bucket_of(self._flag.seed, self._flag.key)

    def _outcome(self, variant: str, reason: Reason, detail: str = "") -> Outcome:
        made = Outcome(self._flag.key, variant, self._flag.variants[variant], reason, detail)
        self._outcomes.append(made)
        return made

    # What msgspec cannot say of a document

    def _check(self) -> None:
        flag = self._flag
        if not flag.variants:
            raise invalid("/variants", "A flag has at least one variant.")
        if flag.hash_version not in HASH_VERSIONS:
            raise invalid("/hash_version", f"This release knows no hash version {flag.hash_version}.")
        if flag.starts_at is not None and flag.ends_at is not None and flag.starts_at >= flag.ends_at:
            raise invalid("/ends_at", "A flag ends after it starts.")
        for member in ("starts_at", "ends_at"):
            moment = getattr(flag, member)
            if moment is not None and moment.tzinfo is None:
                raise invalid(f"/{member}", "A moment needs its time zone, as in 2027-01-31T00:00:00Z.")
        for member in ("off", "on", "default"):
            self._known(getattr(flag, member), f"/{member}")
        self._check_split(flag.split, "/split")
        self._check_rules()
        for number, prerequisite in enumerate(flag.prerequisites):
            self._check_prerequisite(prerequisite.flag, prerequisite.variants, f"/prerequisites/{number}")

    def _check_rules(self) -> None:
        for number, rule in enumerate(self._flag.rules):
            if (rule.serve is None) == (rule.split is None):
                raise invalid(f"/rules/{number}", "A rule serves a variant or splits over several: one of the two.")
            if rule.serve is not None:
                self._known(rule.serve, f"/rules/{number}/serve")
            self._check_split(rule.split, f"/rules/{number}/split")

    def _check_split(self, split: Mapping[str, int] | None, path: str) -> None:
        if split is None:
            return
        for name in split:
            self._known(name, f"{path}/{name}")
        if sum(split.values()) != EVERYBODY:
            raise invalid(path, f"The shares of a split come to {EVERYBODY} (hundredths of a percent).")

    def _check_prerequisite(self, key: str, variants: Sequence[str], path: str) -> None:
        other = self._others.get(key)
        if other is None:
            raise invalid(f"{path}/flag", f"There is no flag «{key}» that this one could need.")
        for name in variants:
            if name not in other.flag.variants:
                raise invalid(f"{path}/variants", f"Flag «{key}» has no variant «{name}».")

    def _known(self, variant: str, path: str) -> None:
        if variant not in self._flag.variants:
            known = ", ".join(self._flag.variants)
            raise invalid(path, f"There is no variant «{variant}»; there are {known}.")


def compile_segment(segment: Segment) -> Test:
    """Segments do not refer to segments: an in-segment condition in one is refused."""
    included, excluded = frozenset(segment.tenants), frozenset(segment.excluded)
    groups = [compile_all(group, {}, f"/any_of/{number}") for number, group in enumerate(segment.any_of)]
    if any(not group for group in segment.any_of):
        raise invalid("/any_of", "A group without conditions would take in everybody.")

    def test(context: TenantContext, user: User) -> bool:
        if context.id in excluded:
            return False
        return context.id in included or any(group(context, user) for group in groups)

    return test


def _now() -> datetime:
    return datetime.now(UTC)
