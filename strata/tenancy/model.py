"""The words of tenancy: tiers, states, placements. Everything else in the package is about moving between them."""

from __future__ import annotations

import re
from enum import StrEnum
from uuid import UUID

import msgspec

from strata.platform.errors import InvalidInputError


class Tier(StrEnum):
    SHARED = "shared"
    SCHEMA = "schema"
    DEDICATED = "dedicated"


class TenantStatus(StrEnum):
    PROVISIONING = "provisioning"
    """Being made or, after a death half way, waiting to be swept; nobody is routed here."""
    ACTIVE = "active"
    READ_ONLY = "read-only"
    SUSPENDED = "suspended"
    CLOSING = "closing"
    CLOSED = "closed"


class CellKind(StrEnum):
    SHARED = "shared"
    """Holds shared and schema tenants."""
    DEDICATED = "dedicated"
    """The database of one tenant."""


class CellState(StrEnum):
    BUILDING = "building"
    """Registered before anything was made, so that a death half way leaves nothing nobody knows of."""
    OPEN = "open"
    DRAINING = "draining"
    """Takes no new tenants."""


class FenceState(StrEnum):
    ACTIVE = "active"
    MOVING = "moving"
    MOVED = "moved"


class Holder(StrEnum):
    """What kind of work holds a tenant or a schema (provisioning/exclusion.py)."""

    MOVE = "move"
    UPGRADE = "upgrade"
    REMOVAL = "removal"


class UpgradeTroubleState(StrEnum):
    """Why a schema was left behind (provisioning/upgrades.py)."""

    FAILED = "failed"
    """Tried as often as a run tries; `error` says what the database said."""
    DEFERRED = "deferred"
    """Not tried, because a move holds the schema."""


SHARED_SCHEMA = "shared"
DEDICATED_SCHEMA = "main"
FIRST_EPOCH = 1


class Placement(msgspec.Struct, frozen=True):
    """Where a tenant lives. `epoch` rises with every cut-over and never repeats."""

    cell: str
    tier: Tier
    schema_name: str
    epoch: int


def tenant_schema(tenant_id: UUID) -> str:
    """Name of a schema tenant's schema and of the role that alone may reach it."""
    return f"t_{tenant_id.hex}"


def schema_for(tier: Tier, tenant_id: UUID) -> str:
    match tier:
        case Tier.SHARED:
            return SHARED_SCHEMA
        case Tier.SCHEMA:
            return tenant_schema(tenant_id)
        case Tier.DEDICATED:
            return DEDICATED_SCHEMA


RESERVED_SLUGS = frozenset(
    """
    about account accounts admin administrator api app assets auth autodiscover billing blog cdn console dashboard dev
    docs download events ftp git health help host imap internal localhost login mail metrics mta mx news ns ns1 ns2
    oauth ops partner partners platform pop pop3 postmaster private public register root sandbox security server shop
    signin signup smtp sso stage staging static status store strata support system team test tests tls unknown webhook
    webhooks webmail wildcard wpad www www1 www2
    """.split()  # noqa: SIM905 - eighty quoted words would hide the list
)

_SLUG = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")


def validate_slug(slug: str) -> str:
    """Return the slug when it can be a DNS label of ours, else raise InvalidInputError.

    Rules: 1 to 40 of a-z, 0-9 and hyphen, begins with a letter, ends without a hyphen, no `--` (which would let
    somebody register an IDN label that looks like a neighbour's), not reserved.
    """
    if slug in RESERVED_SLUGS:
        detail = f"The slug «{slug}» is reserved; choose another."
    elif not _SLUG.fullmatch(slug) or "--" in slug:
        detail = (
            f"«{slug[:80]}» cannot be a slug: use 1 to 40 of a-z, 0-9 and single hyphens, "
            "beginning with a letter and not ending with a hyphen."
        )
    else:
        return slug
    raise InvalidInputError(detail, extra={"errors": [{"path": "/slug", "message": detail}]})
