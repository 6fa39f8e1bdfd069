"""Two tenants with rows in every tenant table, as attacker and victim, wherever both may live."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID, uuid4

import msgspec

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.platform import Tenantry, admin_of
from tests.builders.rows import Row, Table, fill, fingerprint, tables_of


class Meeting(StrEnum):
    """Who attacks whom, and where the victim's rows stand."""

    SHARED_SHARED = "shared against shared"
    SCHEMA_SCHEMA = "schema against schema"
    SHARED_SCHEMA = "shared against schema"
    SCHEMA_SHARED = "schema against shared"
    SCHEMA_STRAY = "schema against rows that strayed into its schema"
    DEDICATED_STRAY = "dedicated against rows that strayed into its database"


_TIERS = {
    Meeting.SHARED_SHARED: (Tier.SHARED, Tier.SHARED),
    Meeting.SCHEMA_SCHEMA: (Tier.SCHEMA, Tier.SCHEMA),
    Meeting.SHARED_SCHEMA: (Tier.SHARED, Tier.SCHEMA),
    Meeting.SCHEMA_SHARED: (Tier.SCHEMA, Tier.SHARED),
    Meeting.SCHEMA_STRAY: (Tier.SCHEMA, None),
    Meeting.DEDICATED_STRAY: (Tier.DEDICATED, None),
}


class Scene(msgspec.Struct, frozen=True):
    attacker: TenantContext
    victim_id: UUID
    victim: TenantContext | None
    """None: only its rows are here, put where they do not belong by an administrator's mistake."""
    own: dict[str, Table]
    theirs: dict[str, Table]
    """The victim's tables, where its rows stand; in the attacker's database."""
    rows: dict[str, Row]
    """The victim's, one in each table."""
    untouched: dict[str, tuple[int, str]]
    """Their fingerprint, to be the same for ever."""

    async def fingerprint(self, runtime: Runtime) -> dict[str, tuple[int, str]]:
        schema = next(iter(self.theirs.values())).schema
        async with admin_of(runtime, self.attacker.placement.cell) as admin:
            return await fingerprint(admin, schema, self.victim_id)


async def new_scene(runtime: Runtime, tenant_on: Tenantry, meeting: Meeting) -> Scene:
    attacking, attacked = _TIERS[meeting]
    attacker = await tenant_on(attacking)
    victim = await tenant_on(attacked) if attacked is not None else None
    victim_id = victim.id if victim is not None else uuid4()
    theirs_in = (victim or attacker).placement.schema_name
    async with admin_of(runtime, attacker.placement.cell) as admin:
        own = await tables_of(admin, attacker.placement.schema_name)
        theirs = await tables_of(admin, theirs_in)
        await fill(admin, own, attacker.id)
        rows = await fill(admin, theirs, victim_id)
        untouched = await fingerprint(admin, theirs_in, victim_id)
    return Scene(attacker, victim_id, victim, {t.name: t for t in own}, {t.name: t for t in theirs}, rows, untouched)
