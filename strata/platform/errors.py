"""Errors that a person can act on: a class with fields, a stable code, an HTTP status, and a sentence saying what to do."""

from __future__ import annotations

from typing import ClassVar


class StrataError(Exception):
    """The base of every failure Strata names.

    Subclasses set `code` (stable, kebab-case, part of the API), `status` (HTTP) and `title`, and pass the sentence
    for this occurrence as `detail`. `extra` carries machine-readable members of the problem document (RFC 9457,
    section 3.2); `headers` what the response must say besides (Retry-After, for one).
    """

    code: ClassVar[str] = "internal-error"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        extra: dict[str, object] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra or {}
        self.headers = headers or {}


class NotFoundError(StrataError):
    code = "not-found"
    status = 404
    title = "Not found"


class ConflictError(StrataError):
    code = "conflict"
    status = 409
    title = "Conflict"


class BadRequestError(StrataError):
    code = "bad-request"
    status = 400
    title = "Bad request"


class InvalidInputError(StrataError):
    """The document was understood and a value in it is not acceptable; `extra["errors"]` names each by its path."""

    code = "invalid-input"
    status = 422
    title = "Invalid input"


class UnauthenticatedError(StrataError):
    code = "unauthenticated"
    status = 401
    title = "Sign-in needed"


class ForbiddenError(StrataError):
    code = "forbidden"
    status = 403
    title = "Forbidden"


class UnavailableError(StrataError):
    """Something Strata depends on does not answer; `retry_after_s` tells the client when another try makes sense."""

    code = "unavailable"
    status = 503
    title = "Temporarily unavailable"

    def __init__(self, detail: str, *, retry_after_s: int = 1, extra: dict[str, object] | None = None) -> None:
        super().__init__(detail, extra=extra, headers={"Retry-After": str(retry_after_s)})


class ConfigurationError(StrataError):
    code = "configuration"
    status = 500
    title = "Strata is not configured correctly"
