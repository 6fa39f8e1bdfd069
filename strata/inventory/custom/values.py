"""Judging custom values by what the tenant has defined, and finding rows by them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from enum import StrEnum
from math import isfinite
from typing import Any
from uuid import UUID

from litestar import Request
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute

from strata.inventory.custom.models import CustomValue
from strata.inventory.settings import CustomField, FieldType, custom_fields_of
from strata.platform.errors import InvalidInputError
from strata.platform.http.query import UnknownParametersError
from strata.tenancy.session import TenantReadSession

PREFIX = "custom."
INDEXED = 200
"""Characters of a value that it can be found by."""
_LONGEST_TEXT = 1000
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

# One that a machine would write too: no thousands separators, no underscores.
_NUMBER = re.compile(r"[+-]?([0-9]{1,300}(\.[0-9]{0,300})?|\.[0-9]{1,300})(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_EXACT = 2**53
"""Whole numbers up to here are kept as such by everything that reads JSON."""

Value = str | int | float
Values = Mapping[str, Any]
Fields = Sequence[CustomField]
Problem = dict[str, str]
"""With `path`, `code` and `message`."""


class Entity(StrEnum):
    PRODUCT = "product"
    MOVEMENT = "movement"


class ProblemCode(StrEnum):
    UNKNOWN = "custom-unknown"
    MISSING = "custom-missing"
    UNFIT = "custom-unfit"


class CustomFieldsRefusedError(InvalidInputError):
    code = "custom-fields-refused"
    title = "Custom fields not acceptable"

    def __init__(self, errors: Sequence[Problem]) -> None:
        more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{errors[0]['message']}{more}", extra={"errors": list(errors)})
        self.errors = list(errors)


def defined(session: TenantReadSession, entity: Entity) -> Fields:
    fields = custom_fields_of(session)
    return fields.product if entity is Entity.PRODUCT else fields.movement


def check(session: TenantReadSession, entity: Entity, values: Values) -> None:
    """Raise CustomFieldsRefusedError, with the path of each value at fault, of each that is missing and each unknown."""
    if errors := list(problems(defined(session, entity), values)):
        raise CustomFieldsRefusedError(errors)


def problems(fields: Fields, values: Values) -> Iterator[Problem]:
    known = {field.key: field for field in fields}
    for key in values:
        if key not in known:
            unknown = f"There is no custom field «{key[:64]}»; the settings have those there are."
            yield _error(key, ProblemCode.UNKNOWN, unknown)
    for field in fields:
        value = values.get(field.key)
        if value is None:
            if field.required:
                yield _error(field.key, ProblemCode.MISSING, f"«{field.label}» is required.")
        elif (message := _unfit(field, value)) is not None:
            yield _error(field.key, ProblemCode.UNFIT, f"«{field.label}»: {message}")


def typed(fields: Fields, given: Mapping[str, Value]) -> dict[str, Value]:
    """Texts of a form or a file as their fields' types; as they are where they are none, and then `problems` says why."""
    numbers = {field.key for field in fields if field.type is FieldType.NUMBER}
    return {key: _number(value) if key in numbers and isinstance(value, str) else value for key, value in given.items()}


def _number(text: str) -> Value:
    plain = text.replace("\N{MINUS SIGN}", "-")
    if not _NUMBER.fullmatch(plain):
        return text
    number = float(plain)
    return int(number) if number.is_integer() and abs(number) <= _EXACT else number


def _unfit(field: CustomField, value: object) -> str | None:
    match field.type:
        case FieldType.TEXT if not isinstance(value, str) or not value or len(value) > _LONGEST_TEXT or "\0" in value:
            return f"give a text of at most {_LONGEST_TEXT} characters."
        case FieldType.NUMBER if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
            return "give a number."
        case FieldType.DATE if not _is_date(value):
            return "give a date as year-month-day."
        case FieldType.SELECT if value not in field.options:
            return f"choose from {', '.join(field.options)}."
        case _:
            return None


def _is_date(value: object) -> bool:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _error(key: str, code: ProblemCode, message: str) -> Problem:
    return {"path": f"/custom/{key}", "code": code.value, "message": message}


def labelled(session: TenantReadSession, entity: Entity, values: Values) -> list[tuple[str, object]]:
    """For a page: each value under its label; under its key where the field is no longer defined."""
    labels = {field.key: field.label for field in defined(session, entity)}
    return [(labels.get(key, key), value) for key, value in values.items()]


def wanted_values(request: Request[Any, Any, Any]) -> dict[str, str]:
    """`custom.colour=red` of the query, by key."""
    return {name.removeprefix(PREFIX): value for name, value in request.query_params.items() if name.startswith(PREFIX)}


def having(
    session: TenantReadSession, entity: Entity, row_id: InstrumentedAttribute[UUID], wanted: Mapping[str, str]
) -> Iterator[ColumnElement[bool]]:
    """Conditions that a row has all of these values; what is no field of the tenant's is no parameter."""
    known = {field.key for field in defined(session, entity)}
    if unknown := sorted(set(wanted) - known):
        raise UnknownParametersError([PREFIX + key for key in unknown], frozenset(PREFIX + key for key in known))
    for key, value in wanted.items():
        yield row_id.in_(
            select(CustomValue.entity_id).where(
                CustomValue.entity == entity.value, CustomValue.key == key, CustomValue.value == value[:INDEXED]
            )
        )
