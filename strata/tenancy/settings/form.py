"""The form on the settings page, made from the JSON Schema of the settings, and read back by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from strata.platform.errors import StrataError
from strata.platform.etags import PreconditionFailedError
from strata.platform.paging import Paging
from strata.tenancy.settings.book import SettingsBook
from strata.tenancy.settings.errors import NoSuchChangeError, NothingToUndoError, SettingsRefusedError
from strata.tenancy.settings.merging import Document, difference, pointer
from strata.tenancy.settings.registers import choices

_REGISTERS = frozenset({"time-zone", "locale", "currency"})
_BLANK_ROWS = 1
_MOST_ROWS = 100
_SHOWN_CHANGES = 10
FORM_ERRORS = (SettingsRefusedError, PreconditionFailedError, NoSuchChangeError, NothingToUndoError)
"""What a person at the form is shown beside it."""


class FieldKind(StrEnum):
    TEXT = "text"
    NUMBER = "number"
    CHECKBOX = "checkbox"
    CHOICE = "choice"
    SECRET = "secret"  # noqa: S105 - the kind's name
    LINES = "lines"
    """A list of texts, one a line."""
    ROWS = "rows"
    """A list of objects."""
    GROUP = "group"


class FormField(msgspec.Struct):
    path: tuple[str | int, ...]
    kind: FieldKind
    label: str
    description: str
    value: Any
    choices: list[tuple[str, str]] = []
    optional: bool = False
    read_only: bool = False
    rows: list[list[FormField]] = []
    """Of kind `rows`, with a blank one at the end; of kind `group`: one row, its members."""
    problem: str = ""

    @property
    def name(self) -> str:
        return pointer(self.path)

    @property
    def id(self) -> str:
        return "setting" + self.name.replace("/", "-")


class SettingsForm:
    def __init__(self, schema: Document, *, staff: bool = False) -> None:
        """`staff`: they may also set what is read-only to tenants."""
        self._schema = schema
        self._staff = staff

    def sections(
        self, values: Mapping[str, Any], problems: Mapping[str, str] | None = None, *, read_only: bool = False
    ) -> list[FormField]:
        """One group a section; `problems` by JSON pointer."""
        return [
            self._field((name,), schema, values.get(name), problems or {}, read_only=read_only)
            for name, schema in self._schema["properties"].items()
        ]

    def patch(self, form: Mapping[str, Any], current: Mapping[str, Any]) -> Document:
        """What the form changes of `current`, the settings with their defaults. Sections that cannot be set stay out."""
        patch: Document = {}
        for name, schema in self._schema["properties"].items():
            if schema.get("readOnly") and not self._staff:
                continue
            resolved = self._resolved(schema)
            before = _without_nulls(
                {member: value for member, value in current[name].items() if not _is_secret(resolved, member)}
            )
            inner = difference(before, self._read((name,), resolved, form))
            inner |= dict(self._secrets((name,), resolved, form))
            if inner:
                patch[name] = inner
        return patch

    def _field(
        self,
        path: tuple[str | int, ...],
        raw: Document,
        value: Any,  # noqa: ANN401 - whatever the schema allows
        problems: Mapping[str, str],
        *,
        read_only: bool,
    ) -> FormField:
        schema = self._resolved(raw)
        kind = _kind(schema)
        read_only = read_only or (bool(schema.get("readOnly")) and not self._staff)
        made = FormField(
            path,
            kind,
            schema.get("title") or str(path[-1]).replace("_", " ").capitalize(),
            schema.get("description", "") if kind is not FieldKind.GROUP else "",
            value,
            _choices(schema),
            bool(schema.get("x-optional")),
            read_only,
            problem=problems.get(pointer(path), ""),
        )
        if kind is FieldKind.GROUP:
            made.rows = [self._members(path, schema, value or {}, problems, read_only=read_only)]
        elif kind is FieldKind.ROWS:
            item = self._resolved(schema["items"])
            shown = [*(value or []), *([] if read_only else [{}] * _BLANK_ROWS)]
            made.rows = [
                self._members((*path, number), item, row, problems, read_only=read_only)
                for number, row in enumerate(shown)
            ]
        return made

    def _members(
        self,
        path: tuple[str | int, ...],
        schema: Document,
        value: Mapping[str, Any],
        problems: Mapping[str, str],
        *,
        read_only: bool,
    ) -> list[FormField]:
        return [
            self._field((*path, name), member, value.get(name, member.get("default")), problems, read_only=read_only)
            for name, member in schema["properties"].items()
        ]

    def _resolved(self, schema: Document) -> Document:
        """Without $ref and without the null of what may be left out."""
        if "anyOf" in schema:
            others = [each for each in schema["anyOf"] if each.get("type") != "null"]
            return {**self._resolved(others[0]), **_annotations(schema), "x-optional": True}
        if "$ref" in schema:
            target = self._schema["$defs"][schema["$ref"].rpartition("/")[2]]
            return {**self._resolved(target), **_annotations(schema)}
        return schema

    def _read(self, path: tuple[str | int, ...], schema: Document, form: Mapping[str, Any]) -> Document:
        """The object at the path as it was posted; what was left empty is left out."""
        found: Document = {}
        for name, raw in schema["properties"].items():
            member = self._resolved(raw)
            if _is_secret(schema, name):
                continue
            value = self._value((*path, name), member, form)
            if value is not None:
                found[name] = value
        return found

    def _value(self, path: tuple[str | int, ...], schema: Document, form: Mapping[str, Any]) -> Any:  # noqa: ANN401
        said = str(form.get(pointer(path), "")).strip()
        match _kind(schema):
            case FieldKind.GROUP:
                return self._read(path, schema, form)
            case FieldKind.ROWS:
                return list(self._rows(path, self._resolved(schema["items"]), form))
            case FieldKind.LINES:
                return [line.strip() for line in said.splitlines() if line.strip()]
            case FieldKind.CHECKBOX:
                return said == "true"
            case FieldKind.NUMBER:
                return _number(said)
            case _:
                return said or None

    def _rows(self, path: tuple[str | int, ...], schema: Document, form: Mapping[str, Any]) -> Iterator[Document]:
        """A row of which the first field was emptied goes."""
        first = next(iter(schema["properties"]))
        for number in range(_MOST_ROWS):
            if form.get(pointer((*path, number, first))) is None:
                return
            if str(form.get(pointer((*path, number, first)))).strip():
                yield self._read((*path, number), schema, form)

    def _secrets(
        self, path: tuple[str, ...], schema: Document, form: Mapping[str, Any]
    ) -> Iterator[tuple[str, str | None]]:
        """Left empty, a secret stays as it is."""
        for name in schema["properties"]:
            if _is_secret(schema, name):
                where = pointer((*path, name))
                if form.get(f"{where}/remove") == "true":
                    yield name, None
                elif said := str(form.get(where, "")).strip():
                    yield name, said


def _annotations(schema: Document) -> Document:
    return {name: schema[name] for name in ("title", "description", "default", "readOnly") if name in schema}


def _kind(schema: Document) -> FieldKind:  # noqa: PLR0911 - one return for each kind
    if schema.get("x-secret"):
        return FieldKind.SECRET
    if "enum" in schema or schema.get("format") in _REGISTERS:
        return FieldKind.CHOICE
    match schema.get("type"):
        case "object":
            return FieldKind.GROUP
        case "boolean":
            return FieldKind.CHECKBOX
        case "integer" | "number":
            return FieldKind.NUMBER
        case "array":
            return FieldKind.LINES if schema["items"].get("type") == "string" else FieldKind.ROWS
        case _:
            return FieldKind.TEXT


def _choices(schema: Document) -> list[tuple[str, str]]:
    if "enum" in schema:
        return [(value, str(value).replace("-", " ").capitalize()) for value in schema["enum"]]
    return choices(schema["format"]) if schema.get("format") in _REGISTERS else []


def _is_secret(schema: Document, member: str) -> bool:
    found = schema["properties"][member]
    return bool(found.get("x-secret")) or any(each.get("x-secret") for each in found.get("anyOf", ()))


def _number(said: str) -> object:
    """As typed when it is none: the model says what is wrong with it."""
    if not said:
        return None
    try:
        return int(said)
    except ValueError:
        return said


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


def change_number(form: Mapping[str, Any]) -> int:
    """Of the change that is to be undone; 0, which there never is, for anything that is no number."""
    said = str(form.get("number", ""))
    return int(said) if said.isdecimal() and len(said) < len(str(2**63)) else 0


async def shown_in_form(
    book: SettingsBook,
    tenant_id: UUID,
    *,
    error: StrataError | None,
    typed: Document | None,
    staff: bool,
    read_only: bool,
) -> dict[str, Any]:
    """What the template of the form needs. `typed`: what was about to be set, shown again beside what is wrong with it."""
    kept = await book.of(tenant_id)
    refused = error.errors if isinstance(error, SettingsRefusedError) else []
    problems = {each["path"]: each["message"] for each in refused}
    shown = kept.settings if typed is None else _overlaid(kept.settings, typed)
    return {
        "sections": SettingsForm(book.model.schema, staff=staff).sections(shown, problems, read_only=read_only),
        "etag": kept.etag,
        "history": await book.history(tenant_id, Paging(_SHOWN_CHANGES)),
        "problem": error.detail if error else None,
    }


def _overlaid(settings: Document, typed: Document) -> Document:
    """The settings as somebody was about to have them; what was emptied shows empty."""
    return {
        name: _overlaid(value, typed[name])
        if isinstance(value, dict) and isinstance(typed.get(name), dict)
        else typed.get(name, value)
        for name, value in {**typed, **settings}.items()
    }
