from __future__ import annotations

from strata.platform.errors import ForbiddenError, UnauthenticatedError


class SignInNeededError(UnauthenticatedError):
    def __init__(self) -> None:
        super().__init__("Sign in, or send an access token as a bearer token.", headers={"WWW-Authenticate": "Bearer"})


class PermissionMissingError(ForbiddenError):
    code = "permission-missing"
    title = "Not permitted"

    def __init__(self, permission: str) -> None:
        super().__init__(
            f"This needs the permission «{permission}», which your role does not have; ask an administrator.",
            extra={"permission": permission},
        )
        self.permission = permission


class RouteClosedError(ForbiddenError):
    """A route was written without saying who may use it; closed until it does."""

    code = "route-closed"
    title = "Not open"

    def __init__(self) -> None:
        super().__init__("This address is not open to anybody yet; tell support this request's id.")
