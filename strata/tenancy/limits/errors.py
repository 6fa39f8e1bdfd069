from __future__ import annotations

import math
from collections.abc import Sequence

from strata.platform.errors import StrataError

VIOLATED = "violated-policies"
"""Member of the problem document: as draft-ietf-httpapi-ratelimit-headers-11 names it."""


class TooManyRequestsError(StrataError):
    """More than the tenant's plan allows; the same request is welcome later."""

    code = "too-many-requests"
    status = 429
    title = "Too many requests"

    def __init__(self, detail: str, policies: Sequence[str], *, retry_after_s: float, headers: dict[str, str]) -> None:
        wait_s = max(1, math.ceil(retry_after_s))
        super().__init__(detail, extra={VIOLATED: list(policies)}, headers={**headers, "Retry-After": str(wait_s)})
        self.retry_after_s = wait_s


class RateExceededError(TooManyRequestsError):
    code = "rate-exceeded"

    def __init__(self, policies: Sequence[str], *, retry_after_s: float, headers: dict[str, str]) -> None:
        wait_s = max(1, math.ceil(retry_after_s))
        detail = f"Your plan's requests a minute are used up; go on in {wait_s} s, as Retry-After says."
        super().__init__(detail, policies, retry_after_s=wait_s, headers=headers)


class TooManyAtOnceError(TooManyRequestsError):
    code = "too-many-at-once"
    title = "Too many requests at once"

    def __init__(self, at_once: int) -> None:
        detail = f"Your plan allows {at_once} requests at once; wait for answers before you ask for more."
        super().__init__(detail, ["concurrency"], retry_after_s=1, headers={})
