"""`?fields=sku,name`: only what the caller needs."""

from __future__ import annotations

import msgspec

from strata.platform.errors import BadRequestError


class UnknownFieldsError(BadRequestError):
    code = "unknown-fields"
    title = "No such field"

    def __init__(self, unknown: list[str], known: tuple[str, ...]) -> None:
        super().__init__(
            f"There is no field {', '.join(f'«{name[:64]}»' for name in unknown[:5])} here; choose from {', '.join(known)}.",
            extra={"unknown": unknown[:5], "fields": known},
        )


class FieldSelection:
    """The fields of one kind of item, and what a request selects from them."""

    def __init__(self, item: type[msgspec.Struct]) -> None:
        self.all = item.__struct_fields__

    def of(self, item: msgspec.Struct, fields: str) -> dict[str, object]:
        """What is selected of the item."""
        return {name: getattr(item, name) for name in self.parse(fields) or ()}

    def parse(self, fields: str | None) -> tuple[str, ...] | None:
        """The selected names in the order of the item, or None: all of them."""
        if fields is None:
            return None
        wanted = {name for part in fields.split(",") if (name := part.strip())}
        unknown = sorted(wanted.difference(self.all))
        if unknown or not wanted:
            raise UnknownFieldsError(unknown, self.all)
        return tuple(name for name in self.all if name in wanted)
