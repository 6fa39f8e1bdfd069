from __future__ import annotations

from collections.abc import Sequence

from strata.platform.errors import ConflictError, ForbiddenError, InvalidInputError, NotFoundError, StrataError


class SettingsRefusedError(InvalidInputError):
    """Members that there are not, or values that do not fit; `errors` has each with its path."""

    code = "settings-refused"
    title = "Settings not acceptable"

    def __init__(self, errors: Sequence[dict[str, str]]) -> None:
        more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
        first = errors[0]
        super().__init__(f"{first['path'] or 'The document'}: {first['message']}{more}", extra={"errors": list(errors)})
        self.errors = list(errors)


class StaffOnlySettingError(ForbiddenError):
    code = "staff-only-setting"
    title = "For staff to set"

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__(
            f"{', '.join(paths)}: only the platform's staff set this; ask support, and leave it out.",
            extra={"errors": [{"path": path, "message": "only staff set this"} for path in paths]},
        )


class PreconditionRequiredError(StrataError):
    code = "precondition-required"
    status = 428
    title = "If-Match needed"

    def __init__(self, current: str) -> None:
        super().__init__(
            "Read the settings, and send the ETag you got as If-Match: so nobody undoes another's change unseen.",
            extra={"etag": current},
            headers={"ETag": current},
        )


class NoSuchChangeError(NotFoundError):
    code = "no-such-change"
    title = "No such change"

    def __init__(self, number: int) -> None:
        super().__init__(f"There is no change {number} of these settings; their history lists those there are.")


class NothingToUndoError(ConflictError):
    code = "nothing-to-undo"
    title = "Nothing to undo"

    def __init__(self, number: int) -> None:
        super().__init__(f"What change {number} did is no longer so: undoing it would change nothing.")
