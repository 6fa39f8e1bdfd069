"""One row, read by the mapping: a line of a movement, or the reason why not."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from strata.inventory.custom.values import ProblemCode, Value
from strata.inventory.imports.custom_columns import Judged, custom_reader
from strata.inventory.imports.mapping import (
    Condition,
    Mapping,
    Normalisation,
    PostRule,
    Reading,
    TimeColumn,
    custom_sources,
)
from strata.inventory.imports.records import Record
from strata.inventory.imports.refusals import Refusal, RefusalCode, excerpt, refusal
from strata.inventory.movements.models import MovementKind
from strata.inventory.settings import CustomFields

SKU_LIMIT = 64
NAME_LIMIT = 200
REFERENCE_LIMIT = 128
QUANTITY_LIMIT = 10**12
"""Far above any stock, and low enough that a movement's lines add up below the database's 2^53."""

Fields = list[str]
Test = Callable[[Fields], bool]


_NO_CUSTOM = CustomFields()
_NOTHING = Judged()


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    record: Record
    rule: int
    group: tuple[str, ...]
    sku: str
    spelling: str
    """The code as the file has it, trimmed."""
    name: str
    """Empty when the row does not name the product."""
    quantity: int
    """As the movement takes it."""
    delta: int
    """What it does to the stock."""
    reference: str | None
    occurred_at: datetime | None
    product_custom: dict[str, Value] = {}
    """What the row says of its product; nobody has asked whether that is all a new one needs."""
    movement_custom: dict[str, Value] = {}


class Interpreter:
    """A mapping, made ready for rows with these columns, of a tenant with these custom fields."""

    def __init__(self, mapping: Mapping, columns: tuple[str, ...], fields: CustomFields = _NO_CUSTOM) -> None:
        document = mapping.document
        self.rules = document.post
        self._columns = columns
        place = {name: columns.index(name) for name in mapping.columns()}
        self._sku = place[document.product.sku.column]
        self._normalise_sku = _normaliser(document.product.sku.normalise)
        name = document.product.name
        self._name = None if name is None else place[name.column]
        self._normalise_name = _normaliser(() if name is None else name.normalise)
        self._quantity = place[document.movement.quantity]
        reference = document.movement.reference
        self._reference = None if reference is None else place[reference]
        occurred_at = document.movement.occurred_at
        self._time = None if occurred_at is None else place[occurred_at.column]
        self._parse_time = _clock(occurred_at or TimeColumn(""))
        of_movement = [source.column for source in custom_sources(document.movement).values() if source.column]
        self._group = tuple(place[column] for column in (*document.movement.group_by, *of_movement))
        self._product_custom = custom_reader(document.product, fields.product, place)
        self._movement_custom = custom_reader(document.movement, fields.movement, place)
        self._refuse = [(rule, _all_of(rule.when, place)) for rule in document.refuse]
        self._post = [(number, rule, _all_of(rule.when, place)) for number, rule in enumerate(document.post)]

    def read(self, record: Record) -> Line | Refusal:
        fields = record.fields
        spelling = fields[self._sku].strip()
        sku = self._normalise_sku(spelling)
        reference = (fields[self._reference].strip() or None) if self._reference is not None else None
        refused = self._refused_text(record, sku, reference) or self._refused_by_rule(record)
        if refused is not None:
            return refused
        quantity = self._read_quantity(record)
        if isinstance(quantity, Refusal):
            return quantity
        found = self._rule_for(record, quantity)
        if isinstance(found, Refusal):
            return found
        number, rule, taken = found
        try:
            occurred_at = None if self._time is None else self._parse_time(fields[self._time].strip())
        except ValueError:
            predicate = f"has no time in «{excerpt(fields[self._time or 0])[:40]}» that the mapping's format can read"
            return self.refused(record, RefusalCode.TIME_INVALID, predicate)
        of_product = self._product_custom(fields) if self._product_custom else _NOTHING
        of_movement = self._movement_custom(fields) if self._movement_custom else _NOTHING
        if of_product.problems or of_movement.problems:
            unfit = self._refused_custom(record, of_product, of_movement)
            if unfit is not None:
                return unfit
        return Line(
            record=record,
            rule=number,
            group=tuple([fields[index].strip() for index in self._group]),
            sku=sku,
            spelling=spelling,
            name=self._read_name(fields, rule),
            quantity=taken,
            delta=-taken if rule.kind is MovementKind.PICK else taken,
            reference=reference,
            occurred_at=occurred_at,
            product_custom=of_product.values,
            movement_custom=of_movement.values,
        )

    def refused(self, record: Record, code: str, predicate: str) -> Refusal:
        source = dict(zip(self._columns, map(excerpt, record.fields), strict=True))
        return refusal(record.line, code, predicate, source)

    def _refused_text(self, record: Record, sku: str, reference: str | None) -> Refusal | None:
        if not sku:
            return self.refused(record, RefusalCode.SKU_MISSING, "names no product")
        if len(sku) > SKU_LIMIT:
            predicate = f"has a product code of more than {SKU_LIMIT} characters"
            return self.refused(record, RefusalCode.SKU_TOO_LONG, predicate)
        if reference is not None and len(reference) > REFERENCE_LIMIT:
            predicate = f"has a reference of more than {REFERENCE_LIMIT} characters"
            return self.refused(record, RefusalCode.REFERENCE_TOO_LONG, predicate)
        if _CONTROL.search(sku) or _CONTROL.search(reference or ""):
            predicate = "has a line break, a tab or another control character in its product code or reference"
            return self.refused(record, RefusalCode.CONTROL_CHARACTER, predicate)
        return None

    def _refused_by_rule(self, record: Record) -> Refusal | None:
        for rule, applies in self._refuse:
            if applies(record.fields):
                return self.refused(record, rule.code, f"was left out: {rule.because}")
        return None

    def _refused_custom(self, record: Record, of_product: Judged, of_movement: Judged) -> Refusal | None:
        """What a product lacks is no fault of the row: it may exist, or another row says it."""
        told = [problem for problem in of_product.problems if problem["code"] != ProblemCode.MISSING]
        problem = next(iter((*told, *of_movement.problems)), None)
        if problem is None:
            return None
        return self.refused(record, problem["code"], f"was refused: {excerpt(problem['message']).rstrip('.')}")

    def _read_quantity(self, record: Record) -> int | Refusal:
        text = record.fields[self._quantity].strip()
        number = _number(text)
        if number is None or number != int(number):
            predicate = f"has the quantity «{excerpt(text)[:40]}», which is no whole number"
            return self.refused(record, RefusalCode.QUANTITY_INVALID, predicate)
        if abs(number) >= QUANTITY_LIMIT:
            predicate = f"has a quantity of {QUANTITY_LIMIT:,} or more, which is hardly meant"
            return self.refused(record, RefusalCode.QUANTITY_INVALID, predicate)
        if number == 0:
            return self.refused(record, RefusalCode.QUANTITY_ZERO, "has the quantity 0 and would move nothing")
        return int(number)

    def _rule_for(self, record: Record, quantity: int) -> tuple[int, PostRule, int] | Refusal:
        """The first rule that applies, its number, and the quantity as its movement takes it."""
        for number, rule, applies in self._post:
            if applies(record.fields):
                taken = -quantity if rule.quantity is Reading.NEGATED else quantity
                if taken < 0 and rule.kind is not MovementKind.ADJUST:
                    predicate = f"would {rule.kind} {taken}, and a {rule.kind} moves 1 or more"
                    return self.refused(record, RefusalCode.QUANTITY_SIGN, predicate)
                return number, rule, taken
        return self.refused(record, RefusalCode.NO_RULE, "meets none of the mapping's rules")

    def _read_name(self, fields: Fields, rule: PostRule) -> str:
        if self._name is None or not rule.names_product:
            return ""
        return self._normalise_name(_CONTROL.sub(" ", fields[self._name]))[:NAME_LIMIT].strip()


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})", re.ASCII)


@lru_cache(maxsize=4096)
def _number(text: str) -> Decimal | None:
    """No thousands separators and no exponents: what 1,000 means depends on who wrote it."""
    if not _PLAIN.fullmatch(text):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _clock(column: TimeColumn) -> Callable[[str], datetime]:
    """Local times that the clocks' change makes ambiguous are taken as the first of the two."""
    zone = ZoneInfo(column.time_zone)
    layout = column.format

    @lru_cache(maxsize=1024)
    def parse(text: str) -> datetime:
        read = datetime.fromisoformat(text) if layout is None else datetime.strptime(text, layout)  # noqa: DTZ007 - the zone follows
        try:
            return (read if read.tzinfo else read.replace(tzinfo=zone)).astimezone(UTC)
        except OverflowError as error:
            raise ValueError(text) from error

    return parse


def _normaliser(steps: tuple[Normalisation, ...]) -> Callable[[str], str]:
    functions = [_NORMALISE[step] for step in steps]

    def normalise(text: str) -> str:
        for function in functions:
            text = function(text)
        return text

    return normalise


def _squeeze(text: str) -> str:
    return " ".join(text.split())


_NORMALISE: dict[Normalisation, Callable[[str], str]] = {
    Normalisation.TRIM: str.strip,
    Normalisation.UPPER: str.upper,
    Normalisation.LOWER: str.lower,
    Normalisation.SQUEEZE: _squeeze,
}


def _all_of(conditions: tuple[Condition, ...], place: dict[str, int]) -> Test:
    tests = [test for condition in conditions for test in _tests(condition, place[condition.column])]
    if len(tests) == 1:
        return tests[0]
    return lambda fields: all(test(fields) for test in tests)


def _tests(condition: Condition, index: int) -> list[Test]:
    tests: list[Test] = []
    if condition.empty is not None:
        tests.append(_is_empty(index, condition.empty))
    if condition.one_of is not None:
        tests.append(_is_one_of(index, frozenset(text.strip().casefold() for text in condition.one_of)))
    if condition.starts_with is not None:
        tests.append(_starts_with(index, tuple(text.casefold() for text in condition.starts_with)))
    if condition.above is not None:
        tests.append(_compares(index, condition.above, Decimal.__gt__))
    if condition.below is not None:
        tests.append(_compares(index, condition.below, Decimal.__lt__))
    if condition.equals is not None:
        tests.append(_compares(index, condition.equals, Decimal.__eq__))
    return tests


def _is_empty(index: int, wanted: bool) -> Test:
    return lambda fields: (not fields[index].strip()) is wanted


def _is_one_of(index: int, texts: frozenset[str]) -> Test:
    return lambda fields: fields[index].strip().casefold() in texts


def _starts_with(index: int, prefixes: tuple[str, ...]) -> Test:
    return lambda fields: fields[index].strip().casefold().startswith(prefixes)


def _compares(index: int, limit: float, holds: Callable[[Decimal, Decimal], bool]) -> Test:
    bound = Decimal(str(limit))

    def test(fields: Fields) -> bool:
        number = _number(fields[index].strip())
        return number is not None and holds(number, bound)

    return test
