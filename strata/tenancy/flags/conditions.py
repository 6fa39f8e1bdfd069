"""Conditions compiled to functions: what can be prepared is prepared once, what is asked per evaluation is one call."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import strata
from strata.platform.errors import InvalidInputError
from strata.tenancy.context import TenantContext
from strata.tenancy.flags.model import Condition, Operator, Value
from strata.tenancy.plans import plans

User = Mapping[str, object]
Test = Callable[[TenantContext, User], bool]
Read = Callable[[TenantContext, User], object]
_Compare = Callable[[Any], bool]

# A tier or a cell is no attribute: product code would learn through a flag what it must not know.
TENANT_ATTRIBUTES: Mapping[str, Callable[[TenantContext], object]] = {
    "id": lambda context: str(context.id),
    "slug": lambda context: context.slug,
    "name": lambda context: context.name,
    "status": lambda context: context.status.value,
    "plan": lambda context: context.plan,
    "plan-version": lambda context: context.plan_version,
    "plan-rank": lambda context: plans()[context.plan].rank,
    "created-at": lambda context: context.created_at,
    "parent-id": lambda context: None if context.parent_id is None else str(context.parent_id),
    "features": lambda context: context.features.names,
    "locale": lambda context: context.settings.locale,
    "time-zone": lambda context: context.settings.time_zone,
    "currency": lambda context: context.settings.currency,
}
_USER = re.compile(r"user\.[A-Za-z][A-Za-z0-9_.-]{0,62}")
_VERSION = re.compile(
    r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?(?:\+[0-9A-Za-z.-]+)?"
)
_ONE_VALUE = frozenset(Operator) - {
    Operator.IN,
    Operator.CONTAINS,
    Operator.STARTS_WITH,
    Operator.ENDS_WITH,
    Operator.IN_SEGMENT,
}
Precedence = tuple[Any, ...]


def invalid(path: str, detail: str) -> InvalidInputError:
    return InvalidInputError(detail, extra={"errors": [{"path": path, "message": detail}]})


def compile_all(conditions: Sequence[Condition], segments: Mapping[str, Test], path: str) -> Test:
    """True when all hold. `path`: where they stand in the document, for InvalidInputError."""
    tests = [compile_condition(each, segments, f"{path}/{number}") for number, each in enumerate(conditions)]
    if len(tests) == 1:
        return tests[0]

    def test(context: TenantContext, user: User) -> bool:
        for each in tests:  # noqa: SIM110 - a generator for all() costs three times this
            if not each(context, user):
                return False
        return True

    return test


def compile_condition(condition: Condition, segments: Mapping[str, Test], path: str) -> Test:
    if condition.operator is Operator.IN_SEGMENT:
        return _in_segment(condition, segments, path)
    if condition.operator in _ONE_VALUE and len(condition.values) != 1:
        raise invalid(f"{path}/values", f"«{condition.operator.value}» compares with one value.")
    read = _reader(condition.attribute, f"{path}/attribute")
    compare = _comparison(condition.operator, condition.values, f"{path}/values")
    negate = condition.negate

    def test(context: TenantContext, user: User) -> bool:
        value = read(context, user)
        if value is None:
            return False
        try:
            return compare(value) is not negate
        except (TypeError, ValueError):
            return False

    return test


def _in_segment(condition: Condition, segments: Mapping[str, Test], path: str) -> Test:
    unknown = [name for name in condition.values if name not in segments]
    if unknown:
        raise invalid(f"{path}/values", f"There is no segment «{unknown[0]}» that could be used here.")
    if condition.attribute:
        raise invalid(f"{path}/attribute", "«in-segment» is about the tenant as a whole: it takes no attribute.")
    chosen = [segments[str(name)] for name in condition.values]
    negate = condition.negate

    def test(context: TenantContext, user: User) -> bool:
        for each in chosen:
            if each(context, user):
                return not negate
        return negate

    return test


def _reader(attribute: str, path: str) -> Read:
    kind, _, name = attribute.partition(".")
    if kind == "tenant" and name in TENANT_ATTRIBUTES:
        of_tenant = TENANT_ATTRIBUTES[name]
        return lambda context, _user: of_tenant(context)
    if _USER.fullmatch(attribute):
        return lambda _context, user: user.get(name)
    if attribute == "strata.version":
        return lambda _context, _user: strata.__version__
    known = ", ".join(f"tenant.{each}" for each in TENANT_ATTRIBUTES)
    raise invalid(
        path, f"«{attribute}» is no attribute: there are {known}, strata.version, and user.… of the caller's."
    )


def _comparison(operator: Operator, values: Sequence[Value], path: str) -> _Compare:
    match operator:
        case Operator.EQUALS | Operator.IN:
            return _equal_to_any(values)
        case Operator.CONTAINS | Operator.STARTS_WITH | Operator.ENDS_WITH:
            return _of_text(operator, values, path)
        case Operator.BEFORE | Operator.AFTER:
            return _of_moments(operator, values[0], path)
        case Operator.VERSION_EQUALS | Operator.VERSION_BELOW | Operator.VERSION_AT_LEAST:
            return _of_versions(operator, values[0], path)
        case _:
            return _of_numbers(operator, values[0], path)


def _equal_to_any(values: Sequence[Value]) -> _Compare:
    # True is 1 to Python, and not to those who write flags.
    wanted = frozenset((type(value) is bool, value) for value in values)
    if not any(isinstance(value, bool) for value in values):
        plain = frozenset(values)

        def compare(value: Any) -> bool:  # noqa: ANN401 - whatever the attribute is
            if isinstance(value, str):
                return value in plain
            if isinstance(value, Collection):
                return not plain.isdisjoint(value)
            return not isinstance(value, bool) and value in plain

        return compare
    return lambda value: (type(value) is bool, value) in wanted


def _of_text(operator: Operator, values: Sequence[Value], path: str) -> _Compare:
    texts = tuple(value for value in values if isinstance(value, str))
    if len(texts) != len(values):
        raise invalid(path, f"«{operator.value}» compares with texts.")
    if operator is Operator.CONTAINS:
        # «in» raises TypeError for what nothing can be in.
        return lambda value: any(text in value for text in texts)
    if operator is Operator.STARTS_WITH:
        return lambda value: _text(value).startswith(texts)
    return lambda value: _text(value).endswith(texts)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _of_numbers(operator: Operator, limit: Value, path: str) -> _Compare:
    if isinstance(limit, (str, bool)):
        raise invalid(path, f"«{operator.value}» compares with a number.")
    match operator:
        case Operator.LESS_THAN:
            return lambda value: _is_number(value) and value < limit
        case Operator.AT_MOST:
            return lambda value: _is_number(value) and value <= limit
        case Operator.GREATER_THAN:
            return lambda value: _is_number(value) and value > limit
        case _:
            return lambda value: _is_number(value) and value >= limit


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return True


def _of_moments(operator: Operator, limit: Value, path: str) -> _Compare:
    try:
        wanted = moment_of(limit)
    except (TypeError, ValueError):
        raise invalid(path, f"«{operator.value}» compares with a moment, as in 2027-01-31T00:00:00Z.") from None
    if operator is Operator.BEFORE:
        return lambda value: moment_of(value) < wanted
    return lambda value: moment_of(value) > wanted


def moment_of(value: object) -> datetime:
    """A text or a datetime; without a zone it is UTC's. TypeError, ValueError."""
    moment = value if isinstance(value, datetime) else _parsed(value)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _parsed(value: object) -> datetime:
    if not isinstance(value, str):
        raise TypeError
    return datetime.fromisoformat(value)


def _of_versions(operator: Operator, limit: Value, path: str) -> _Compare:
    try:
        wanted = precedence(limit)
    except (TypeError, ValueError):
        raise invalid(path, f"«{operator.value}» compares with a version, as in 1.4.0 (semver.org).") from None
    match operator:
        case Operator.VERSION_EQUALS:
            return lambda value: precedence(value) == wanted
        case Operator.VERSION_BELOW:
            return lambda value: precedence(value) < wanted
        case _:
            return lambda value: precedence(value) >= wanted


@lru_cache(maxsize=1024)
def precedence(version: object) -> Precedence:
    """Something to compare versions by, as semver.org (2.0.0, item 11) orders them. TypeError, ValueError."""
    if not isinstance(version, str):
        raise TypeError
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError(version)
    major, minor, patch, before = match.groups()
    # A pre-release comes before its release; of its parts numbers come before texts, and fewer before more.
    parts = tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in (before or "").split(".") if part
    )
    return int(major), int(minor), int(patch), not parts, parts
