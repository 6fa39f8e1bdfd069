from __future__ import annotations

from strata.platform.errors import ForbiddenError


class TokenHostMismatchError(ForbiddenError):
    """Token and host name different tenants, or a staff token came to a tenant, or a tenant's to the console."""

    code = "token-host-mismatch"
    title = "Token is for another address"

    def __init__(self) -> None:
        super().__init__(
            "This access token belongs to another account; use the address of the account it was issued for."
        )


class CrossSiteRequestError(ForbiddenError):
    """A page of somebody else made a signed-in browser send a change."""

    code = "cross-site-request"
    title = "Request from another site"

    def __init__(self) -> None:
        super().__init__("This change was not sent from our own pages; open the page here and try again.")
