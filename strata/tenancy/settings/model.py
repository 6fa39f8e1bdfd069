"""All sections as one model: its schema, its defaults, and what is wrong with a document."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from strata.platform.errors import InvalidInputError
from strata.tenancy.settings.errors import SettingsRefusedError, StaffOnlySettingError
from strata.tenancy.settings.merging import Document, leaves, pointer, without_empty
from strata.tenancy.settings.sections import Section, is_secret

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class SettingsModel:
    def __init__(self, sections: Iterable[Section]) -> None:
        self.sections = {section.name: section for section in sections}
        self._model = self._composed()
        self.schema: Document = {"$schema": _DIALECT, **self._model.model_json_schema(by_alias=True)}
        for name, section in self.sections.items():
            if section.staff_only:
                self.schema["properties"][name]["readOnly"] = True
        self.secrets = frozenset(self._secret_paths())

    def _composed(self) -> type[BaseModel]:
        fields: dict[str, Any] = {
            name: (section.model, Field(default_factory=section.model, title=_title(name)))
            for name, section in self.sections.items()
        }
        made = create_model("Settings", __config__=ConfigDict(extra="forbid", strict=True), **fields)
        return cast("type[BaseModel]", made)

    def _secret_paths(self) -> Iterable[tuple[str, str]]:
        for name, section in self.sections.items():
            for member, schema in section.model.model_json_schema().get("properties", {}).items():
                if is_secret(schema):
                    yield name, member

    def checked(self, document: Document) -> Document:
        """The document as it is kept: sparse, in JSON's own types. SettingsRefusedError names every member at fault."""
        try:
            # From JSON's types: strict still, but an enum may come as its value.
            validated = self._model.model_validate_json(msgspec.json.encode(document))
        except ValidationError as error:
            raise SettingsRefusedError([_problem(each) for each in error.errors()]) from None
        return without_empty(validated.model_dump(mode="json", exclude_unset=True, exclude_none=True))

    def effective(self, document: Document) -> Document:
        """With every default filled in. Lenient: a release from before or after may have written members of its own."""
        known = {
            name: {
                member: value
                for member, value in document.get(name, {}).items()
                if member in section.model.model_fields
            }
            for name, section in self.sections.items()
        }
        return self._model.model_validate_json(msgspec.json.encode(known)).model_dump(mode="json")

    def refuse_staff_only(self, patch: Document) -> None:
        named = [path for path, _ in leaves(patch) if (section := self.sections.get(path[0])) and section.staff_only]
        if named:
            raise StaffOnlySettingError([pointer(path) for path in named])

    def value_at(self, path: str) -> tuple[tuple[str, ...], Any]:
        """The parts of a dotted path such as regional.time_zone, and the default there; InvalidInputError."""
        parts = tuple(path.split("."))
        found: Any = self.effective({})
        for part in parts:
            if not isinstance(found, dict) or part not in found:
                detail = f"There is no setting «{path[:100]}»; strata settings schema shows those there are."
                raise InvalidInputError(detail)
            found = found[part]
        return parts, found


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _problem(error: Any) -> dict[str, str]:  # noqa: ANN401 - pydantic's ErrorDetails
    path = pointer(tuple(error["loc"]))
    match error["type"]:
        case "extra_forbidden":
            message = "there is no such setting"
        case "value_error":
            message = str(error["ctx"]["error"])
        case _:
            message = str(error["msg"])[:1].lower() + str(error["msg"])[1:]
    return {"path": path, "code": error["type"].replace("_", "-"), "message": message}
