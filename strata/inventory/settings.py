"""The inventory's sections of a tenant's settings: custom fields, and the rules of its warehouse."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from strata.tenancy.context import TenantContext
from strata.tenancy.session import TenantReadSession
from strata.tenancy.settings.sections import Section, SectionModel

_MOST_FIELDS = 50
_MAX_QUANTITY = 10**12


class FieldType(StrEnum):
    TEXT = "text"
    NUMBER = "number"
    DATE = "date"
    SELECT = "select"


Option = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]


class CustomField(SectionModel):
    key: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,39}$", title="Key", description="As programs call it: small letters, digits and _."
    )
    label: str = Field(min_length=1, max_length=100, title="Label")
    type: FieldType = Field(default=FieldType.TEXT, title="Type")
    options: list[Option] = Field(default=[], max_length=200, title="Options")
    required: bool = Field(default=False, title="Required")

    @model_validator(mode="after")
    def _options_belong_to_select(self) -> CustomField:
        if (self.type is FieldType.SELECT) != bool(self.options):
            message = "a select has options, and nothing else has"
            raise ValueError(message)
        if len(set(self.options)) != len(self.options):
            message = "an option stands there twice"
            raise ValueError(message)
        return self


Fields = Annotated[list[CustomField], Field(max_length=_MOST_FIELDS)]


class CustomFields(SectionModel):
    product: Fields = Field(default=[], title="Of products", description="Empty a key to remove its field.")
    movement: Fields = Field(default=[], title="Of movements", description="Empty a key to remove its field.")

    @model_validator(mode="after")
    def _keys_differ(self) -> CustomFields:
        for fields in (self.product, self.movement):
            keys = [field.key for field in fields]
            if len(set(keys)) != len(keys):
                message = "two fields have the same key"
                raise ValueError(message)
        return self


class AboveQuantity(StrEnum):
    APPROVE = "approve"
    """It waits for somebody else who may approve."""
    REFUSE = "refuse"


class Rules(SectionModel):
    low_stock_minimum: int | None = Field(
        default=None,
        ge=1,
        le=_MAX_QUANTITY,
        title="Low stock below",
        description="For products without a threshold of their own.",
    )
    approval_above: int | None = Field(
        default=None,
        ge=1,
        le=_MAX_QUANTITY,
        title="Approval above",
        description="Of one line of a movement; counts aside.",
    )
    above: AboveQuantity = Field(default=AboveQuantity.APPROVE, title="What happens above it")
    adjustment_reasons: list[Option] = Field(
        default=[],
        max_length=100,
        title="Reasons of adjustments",
        description="One a line. With any here, an adjustment needs one of them.",
    )


CUSTOM_FIELDS = Section("custom_fields", CustomFields)
RULES = Section("rules", Rules)
SECTIONS = (CUSTOM_FIELDS, RULES)


def custom_fields_of(session: TenantReadSession) -> CustomFields:
    return custom_fields_in(session.info["context"])


def custom_fields_in(context: TenantContext) -> CustomFields:
    return _custom_fields(context.settings.sections.get(CUSTOM_FIELDS.name, "{}"))


def rules_of(session: TenantReadSession) -> Rules:
    return _rules(session.info["context"].settings.sections.get(RULES.name, "{}"))


# By their text: a context is decoded anew for each request that Redis answers, and these do not change.
@lru_cache(maxsize=4096)
def _custom_fields(document: str) -> CustomFields:
    return CustomFields.model_validate_json(document)


@lru_cache(maxsize=4096)
def _rules(document: str) -> Rules:
    return Rules.model_validate_json(document)
