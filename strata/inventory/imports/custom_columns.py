"""Custom values of a file's rows: where its mapping has them from, judged by what judges those of API and page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Mapping as Map
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from strata.inventory.custom.values import Fields, Problem, ProblemCode, Value, problems, typed
from strata.inventory.imports.errors import MappingRefusedError
from strata.inventory.imports.mapping import (
    CustomSource,
    Mapping,
    MovementPart,
    ProductPart,
    custom_sources,
    mapping_of,
)
from strata.inventory.settings import CustomFields

PRODUCT_PREFIX = "product.custom."
MOVEMENT_PREFIX = "movement.custom."
PREFIXES = (PRODUCT_PREFIX, MOVEMENT_PREFIX)


class Judged(msgspec.Struct, frozen=True):
    values: dict[str, Value] = {}
    problems: list[Problem] = []


def custom_reader(
    part: ProductPart | MovementPart, fields: Fields, place: Map[str, int]
) -> Callable[[list[str]], Judged] | None:
    """Reads what a row gives, its fields being in these places. None: the mapping names no custom fields."""
    sources = custom_sources(part)
    if not sources:
        return None
    constants = _constants(sources, fields)
    columns = {key: place[source.column] for key, source in sources.items() if source.column is not None}
    places = tuple(columns.values())

    # Files repeat themselves here: a colour, a carrier.
    @lru_cache(maxsize=4096)
    def judge(texts: tuple[str, ...]) -> Judged:
        # An empty field is no value, as in a form.
        given = {key: text for key, text in zip(columns, texts, strict=True) if text}
        values = {**constants, **typed(fields, given)}
        return Judged(values, list(problems(fields, values)))

    return lambda row: judge(tuple([row[index].strip() for index in places]))


def opening_values(mapping: Mapping, fields: CustomFields) -> dict[str, Value]:
    """What movements of opening stock have."""
    sources = custom_sources(mapping.document.movement)
    opening = {key: source.opening for key, source in sources.items() if source.opening is not None}
    return {**_constants(sources, fields.movement), **typed(fields.movement, opening)}


def check_custom(mapping: Mapping, fields: CustomFields, *, opening_stock: bool) -> None:
    """Raise MappingRefusedError for what no row could mend: unknown fields, constants that do not fit, opening stock
    without what the organisation requires of every movement.
    """
    document = mapping.document
    for part, prefix, known in (
        (document.product, PRODUCT_PREFIX, fields.product),
        (document.movement, MOVEMENT_PREFIX, fields.movement),
    ):
        sources = custom_sources(part)
        named = {**dict.fromkeys(sources), **_constants(sources, known)}
        _refuse(mapping, prefix, problems(known, named), missing=False)
    of_opening = problems(fields.movement, opening_values(mapping, fields))
    _refuse(mapping, f"opening stock, {MOVEMENT_PREFIX}", of_opening, missing=opening_stock)


def with_columns(mapping: Mapping, named: Iterable[tuple[str, str]]) -> Mapping:
    """The mapping, with a column for each `product.custom.colour`: what an upload says beside the mapping's name."""
    columns = list(named)
    document = mapping.document
    product, movement = (
        {name.removeprefix(prefix): column for name, column in columns if name.startswith(prefix)}
        for prefix in PREFIXES
    )
    if product:
        document = replace(document, product=replace(document.product, custom=product))
    if movement:
        document = replace(document, movement=replace(document.movement, custom=movement))
    return mapping if document is mapping.document else mapping_of(mapping.name, document)


def _constants(sources: Map[str, CustomSource], fields: Fields) -> dict[str, Value]:
    given = {key: source.constant for key, source in sources.items() if source.constant is not None}
    return typed(fields, given)


def _refuse(mapping: Mapping, prefix: str, found: Iterable[Problem], *, missing: bool) -> None:
    for problem in found:
        if missing or problem["code"] != ProblemCode.MISSING:
            key = problem["path"].rpartition("/")[2]
            raise MappingRefusedError(mapping.name, f"{prefix}{key}: {problem['message'].rstrip('.')}")
