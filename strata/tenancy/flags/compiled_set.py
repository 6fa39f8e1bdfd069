"""All flags of one moment, compiled in the order of their prerequisites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import structlog

from strata.platform.errors import ConflictError, InvalidInputError
from strata.tenancy.context import TenantContext
from strata.tenancy.flags.compiling import CompiledFlag, Compiler, Now, Outcome, compile_segment
from strata.tenancy.flags.conditions import Test, User
from strata.tenancy.flags.model import Flag, FlagSet, Operator, Reason

log = structlog.get_logger(__name__)

NOBODY: User = {}
_UNKNOWN_KEPT = 1000


class PrerequisiteCycleError(ConflictError):
    code = "prerequisite-cycle"
    title = "Flags need each other"

    def __init__(self, cycle: list[str]) -> None:
        super().__init__(
            f"Flags would need each other in a circle: {' -> '.join(cycle)}; take one of these prerequisites away.",
            extra={"cycle": cycle},
        )


class CompiledSet:
    """`strict`: raise for what cannot be compiled (staff are told); else leave it out, which turns it off."""

    def __init__(self, flags: FlagSet, *, strict: bool = False, now: Now | None = None) -> None:
        self.source = flags
        self._strict = strict
        self._now = now
        self._segments: dict[str, Test] = {}
        self._compiled: dict[str, CompiledFlag] = {}
        self._unknown: dict[str, Outcome] = {}
        self._compile_segments()
        for key in in_order(flags.flags, strict=strict):
            self._compile(flags.flags[key])

    def evaluate(self, key: str, context: TenantContext, user: User = NOBODY) -> Outcome:
        compiled = self._compiled.get(key)
        if compiled is None:
            return self._off(key)
        return compiled(context, user)

    def __contains__(self, key: str) -> bool:
        return key in self._compiled

    def outcomes(self) -> Iterator[Outcome]:
        for compiled in self._compiled.values():
            yield from compiled.outcomes
        yield from self._unknown.values()

    def _off(self, key: str) -> Outcome:
        outcome = self._unknown.get(key)
        if outcome is None:
            outcome = Outcome(key, "off", False, Reason.UNKNOWN, "there is no such flag")  # noqa: FBT003 - the payload
            if len(self._unknown) < _UNKNOWN_KEPT:
                self._unknown[key] = outcome
        outcome.count += 1
        return outcome

    def _compile_segments(self) -> None:
        for name, segment in self.source.segments.items():
            try:
                self._segments[name] = compile_segment(segment)
            except InvalidInputError as error:
                self._leave_out("segment", name, error)

    def _compile(self, flag: Flag) -> None:
        try:
            self._compiled[flag.key] = Compiler(flag, self._segments, self._compiled, self._now).compile()
        except InvalidInputError as error:
            self._leave_out("flag", flag.key, error)

    def _leave_out(self, what: str, name: str, error: InvalidInputError) -> None:
        if self._strict:
            raise InvalidInputError(f"{what.capitalize()} «{name}»: {error.detail}", extra=error.extra) from None
        log.error("flags.left_out", what=what, name=name, why=error.detail)


def in_order(flags: Mapping[str, Flag], *, strict: bool = True) -> list[str]:
    """Prerequisites first. Flags in a circle raise PrerequisiteCycleError or, when not strict, are left out."""
    ordered: list[str] = []
    done: set[str] = set()

    def visit(key: str, path: list[str]) -> bool:
        if key in path:
            if strict:
                raise PrerequisiteCycleError([*path[path.index(key) :], key])
            log.error("flags.circle", flags=path)
            return False
        if key in done or key not in flags:
            return True
        for each in flags[key].prerequisites:
            if not visit(each.flag, [*path, key]):
                return False
        done.add(key)
        ordered.append(key)
        return True

    for key in sorted(flags):
        visit(key, [])
    return ordered


def dependants(flags: FlagSet, changed_flags: set[str], changed_segments: set[str]) -> set[str]:
    """The flags whose outcome may differ when these flags and segments do: they, and whatever refers to them."""
    affected = set(changed_flags)
    for key, flag in flags.flags.items():
        used = {
            str(name)
            for rule in flag.rules
            for condition in rule.when
            if condition.operator is Operator.IN_SEGMENT
            for name in condition.values
        }
        if used & changed_segments:
            affected.add(key)
    while True:
        more = {
            key
            for key, flag in flags.flags.items()
            if key not in affected and any(each.flag in affected for each in flag.prerequisites)
        }
        if not more:
            return affected
        affected |= more


def check_segment_names(flags: FlagSet, name: str) -> None:
    """Before a segment goes: ConflictError names the flag that refers to it."""
    using = sorted(dependants(FlagSet(0, flags.flags, {}), set(), {name}))
    if using:
        message = f"Segment «{name}» is used by {', '.join(using)}: take it out of them first."
        raise ConflictError(message)
