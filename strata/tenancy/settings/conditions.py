"""Finding tenants by what they have set, as people write it: settings.regional.time_zone=Europe/Berlin."""

from __future__ import annotations

import msgspec

from strata.platform.errors import InvalidInputError
from strata.tenancy.catalog.tenants import SettingCondition
from strata.tenancy.settings.model import SettingsModel


def setting_condition(model: SettingsModel, text: str) -> SettingCondition:
    """`text`: path, «=», value; a value that is JSON (true, 5, "5") is that, any other is text."""
    path, equals, said = text.removeprefix("settings.").partition("=")
    if not equals:
        detail = f"«{text[:100]}» is no condition; write it as settings.regional.time_zone=Europe/Berlin."
        raise InvalidInputError(detail)
    parts, default = model.value_at(path.strip())
    return SettingCondition(parts, _value(said.strip(), default), default)


def _value(said: str, default: object) -> object:
    if isinstance(default, str):
        return said
    try:
        return msgspec.json.decode(said)
    except msgspec.DecodeError:
        return said
