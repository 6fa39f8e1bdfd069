"""A section: one domain's share of the settings, as a pydantic model whose every member has a default."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from strata.tenancy.settings.registers import currencies, locales, time_zones

_LONGEST_URL = 2000


class SectionModel(BaseModel):
    """The base of every section and of what stands in one. Strict: «7» is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Section(msgspec.Struct, frozen=True):
    name: str
    model: type[SectionModel]
    staff_only: bool = False
    """Tenants see it and cannot set it."""


def _among(register: Callable[[], frozenset[str]], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if value not in register():
            message = f"there is no {what} «{value[:80]}»"
            raise ValueError(message)
        return value

    return AfterValidator(check)


TimeZone = Annotated[str, _among(time_zones, "time zone"), Field(json_schema_extra={"format": "time-zone"})]
LocaleName = Annotated[str, _among(locales, "locale"), Field(json_schema_extra={"format": "locale"})]
Currency = Annotated[str, _among(currencies, "currency in use"), Field(json_schema_extra={"format": "currency"})]


class Regional(SectionModel):
    time_zone: TimeZone = Field(
        default="UTC", title="Time zone", description="Times on pages, and when nightly jobs run."
    )
    locale: LocaleName = Field(default="en", title="Language and region", description="How numbers are written.")
    currency: Currency = Field(default="USD", title="Currency")


class Digest(StrEnum):
    DAILY = "daily"
    WEEKLY = "weekly"
    NEVER = "never"


def check_url(value: str) -> str:
    """What may be sent to: an https address with a host and without a password in it."""
    try:
        parts = urlsplit(value)
    except ValueError:
        parts = urlsplit("")
    if (
        parts.scheme != "https"
        or not parts.hostname
        or parts.password
        or len(value) > _LONGEST_URL
        or not value.isprintable()
    ):
        message = "give an address that begins with https://"
        raise ValueError(message)
    return value


SECRET = {"format": "password", "writeOnly": True, "x-secret": True}
SecretReference = Annotated[str, Field(pattern=r"^secret:[0-9a-f-]{36}$", json_schema_extra=SECRET)]
"""What is set is a URL; what is kept and shown is where the key port's sealed text lies."""


class Notifications(SectionModel):
    email_digest: Digest = Field(default=Digest.DAILY, title="E-mail digest", description="What happened, by e-mail.")
    slack_webhook: SecretReference | None = Field(default=None, title="Slack webhook", description="A secret address.")
    webhook_url: SecretReference | None = Field(default=None, title="Webhook address", description="A secret address.")


class Contract(SectionModel):
    account_manager: str | None = Field(default=None, max_length=200, title="Account manager")
    customer_reference: str | None = Field(default=None, max_length=200, title="Customer reference")


REGIONAL = Section("regional", Regional)
NOTIFICATIONS = Section("notifications", Notifications)
CONTRACT = Section("contract", Contract, staff_only=True)
SECTIONS = (REGIONAL, NOTIFICATIONS, CONTRACT)
"""Those of tenancy itself; composition adds the other domains'."""


def is_secret(schema: dict[str, Any]) -> bool:
    return schema.get("x-secret") is True or any(is_secret(each) for each in schema.get("anyOf", ()))
