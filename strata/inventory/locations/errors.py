from __future__ import annotations

from enum import StrEnum

from strata.platform.errors import ConflictError, InvalidInputError, NotFoundError


class Place(StrEnum):
    WAREHOUSE = "warehouse"
    ZONE = "zone"
    BIN = "bin"


class PlaceNotFoundError(NotFoundError):
    code = "location-not-found"
    title = "No such location"

    def __init__(self, place: Place, name: object) -> None:
        super().__init__(f"There is no {place} «{str(name)[:80]}»; list them to see what there is.")


class UnknownParentError(InvalidInputError):
    """A zone in no warehouse, or a bin in no zone."""

    code = "unknown-location"
    title = "No such location"

    def __init__(self, parent: Place) -> None:
        detail = f"There is no such {parent}, or it is inactive; use the id of an active {parent}."
        super().__init__(detail, extra={"errors": [{"path": f"/{parent}_id", "message": detail}]})


class PlaceTakenError(ConflictError):
    code = "location-code-taken"
    title = "Code in use"

    def __init__(self, place: Place, code: str) -> None:
        super().__init__(f"There is a {place} «{code}» already; choose another code.", extra={"code_taken": code})


class PlaceInUseError(ConflictError):
    code = "location-in-use"
    title = "Location in use"

    def __init__(self, place: Place, what: str) -> None:
        super().__init__(f"This {place} still has {what}; deactivate or empty those first.")
