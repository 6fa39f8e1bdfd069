"""The isolation statement: where a tenant's data lives, what separates it, what was checked just now; signed."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

import asyncpg
import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

import strata
from strata.platform.database.availability import is_unreachable
from strata.platform.database.connecting import ServerUnreachableError
from strata.platform.errors import UnavailableError
from strata.platform.single_flight import SingleFlight
from strata.platform.tokens import TokenAuthority
from strata.tenancy.attestation.checks import Check, checked
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.catalog.tables import CellRow, ServerRow
from strata.tenancy.context import TenantContext
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.model import Tier

FORM = 1
"""Of the document: raised when a member changes its meaning."""
SIGNATURE_TYPE = "strata-isolation-statement"
_GOOD_FOR_S = 10.0

_HOMES = {
    Tier.SHARED: "In a database that several customers share: in common tables, where every row carries its owner.",
    Tier.SCHEMA: "In tables of its own (a schema that no other customer uses), in a database that several customers share.",
    Tier.DEDICATED: "In a database of its own: no other customer has a row, a table or a login in it.",
}
_WALLS = (
    "The database compares the owner of every row with a seal that only it can make, in exchange for this customer's key.",
    "A seal is good for one transaction, and holds every statement in it, also a faulty or malicious one.",
    "The application's database roles own nothing, so they can lift no protection; changes of tables are made by another role.",
    "The application adds the customer to every query by itself, independently of the database.",
)
_OWN_ROLE = "A database role of this customer's own is the only one that can reach these tables."
_OWN_DATABASE = "The database accepts no other customer: it has no entry for one."


class Place(msgspec.Struct, frozen=True):
    tier: Tier
    words: str
    server: str
    region: str
    cell: str
    database: str
    schema: str
    epoch: int
    """How often the home has changed hands; the database turns whoever has an older number away."""


class Statement(msgspec.Struct, frozen=True):
    form: int
    issued_at: datetime
    software: str
    tenant_id: UUID
    slug: str
    name: str
    place: Place
    walls: list[str]
    checks: list[Check]
    passed: bool


class SignedStatement(msgspec.Struct, frozen=True):
    statement: Statement
    digest: str
    """SHA-256 of the statement, as JSON with keys in order and without white space."""
    signature: str
    """A JWS (RFC 7515) over the digest; its key is in /.well-known/jwks.json."""


class CannotAttestError(UnavailableError):
    code = "cannot-attest"
    title = "Nothing to attest by"

    def __init__(self, cell: str) -> None:
        super().__init__(f"The database «{cell}» does not answer, and nothing is attested unseen; try again shortly.")
        self.cell = cell


class Attestation:
    def __init__(
        self, catalog: AsyncEngine, registry: Registry, contexts: ContextCache, tokens: TokenAuthority
    ) -> None:
        self._catalog = catalog
        self._registry = registry
        self._contexts = contexts
        self._tokens = tokens
        self._flights: SingleFlight[UUID, SignedStatement] = SingleFlight()
        self._newest: dict[UUID, tuple[float, SignedStatement]] = {}

    async def attest(self, tenant_id: UUID) -> SignedStatement:
        """Look at the live database and say what holds.

        Asked again within ten seconds, this process gives the same statement: looking costs the server connections.
        """
        known = self._newest.get(tenant_id)
        if known is not None and monotonic() - known[0] < _GOOD_FOR_S:
            return known[1]
        made = await self._flights.join(tenant_id, lambda _flight: self._attest(tenant_id))
        now = monotonic()
        self._newest = {key: each for key, each in self._newest.items() if now - each[0] < _GOOD_FOR_S}
        self._newest[tenant_id] = (now, made)
        return made

    async def _attest(self, tenant_id: UUID) -> SignedStatement:
        # Past the caches: a statement about where a tenant was would be a false one.
        context = await self._contexts.fresh(tenant_id)
        try:
            checks = await checked(self._registry, context)
        except (ServerUnreachableError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # The first names the server's address, which is no tenant's business.
            # InterfaceError: the next word on a connection that was cut in the middle.
            if isinstance(error, (ServerUnreachableError, OSError, asyncpg.InterfaceError)) or is_unreachable(error):
                raise CannotAttestError(context.placement.cell) from error
            raise
        statement = Statement(
            FORM,
            datetime.now(UTC),
            f"strata {strata.__version__}",
            context.id,
            context.slug,
            context.name,
            await self._place(context),
            _walls(context.placement.tier),
            checks,
            all(check.passed for check in checks),
        )
        digest = digest_of(statement)
        return SignedStatement(statement, digest, self._tokens.sign({"sha256": digest}, SIGNATURE_TYPE))

    async def _place(self, context: TenantContext) -> Place:
        placement = context.placement
        statement = (
            select(ServerRow.name, CellRow.region, CellRow.database)
            .join(ServerRow, ServerRow.id == CellRow.server_id)
            .where(CellRow.name == placement.cell)
        )
        async with self._catalog.connect() as connection:
            row = (await connection.execute(statement)).one()
        return Place(
            placement.tier,
            _HOMES[placement.tier],
            row.name,
            row.region,
            placement.cell,
            row.database,
            placement.schema_name,
            placement.epoch,
        )


def digest_of(statement: Statement) -> str:
    return hashlib.sha256(msgspec.json.encode(statement, order="sorted")).hexdigest()


def _walls(tier: Tier) -> list[str]:
    match tier:
        case Tier.SHARED:
            return list(_WALLS)
        case Tier.SCHEMA:
            return [_OWN_ROLE, *_WALLS]
        case Tier.DEDICATED:
            return [_OWN_DATABASE, *_WALLS]
