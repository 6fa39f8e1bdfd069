"""Everything that making a tenant can leave anywhere, counted by the administrator."""

from __future__ import annotations

import msgspec

from strata.runtime import Runtime
from tests.builders.platform import FIRST_CELL, SECOND_CELL, Platform, admin_of, as_admin


class Traces(msgspec.Struct, frozen=True):
    databases: frozenset[str]
    roles: frozenset[str]
    schemas: frozenset[str]
    fences: frozenset[str]
    revisions: frozenset[str]
    catalog: tuple[int, ...]
    """Tenants that are not closed, placements, cells, documents, domains."""


async def traces_of(platform: Platform, runtime: Runtime) -> Traces:
    databases, roles, schemas, fences, revisions = set[str](), set[str](), set[str](), set[str](), set[str]()
    for server in (platform.first, platform.second):
        async with as_admin(server, "postgres") as admin:
            databases |= {
                f"{server.name}/{row[0]}"
                for row in await admin.fetch(
                    "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", platform.prefix
                )
            }
            roles |= {
                f"{server.name}/{row[0]}"
                for row in await admin.fetch("SELECT rolname FROM pg_roles WHERE rolname ~ '^t_[0-9a-f]{32}$'")
            }
    for cell in (FIRST_CELL, SECOND_CELL):
        async with admin_of(runtime, cell) as admin:
            # PostgreSQL keeps a schema for each back end that ever made a temporary table; those are nobody's.
            schemas |= {
                f"{cell}/{row[0]}"
                for row in await admin.fetch("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'")
            }
            fences |= {f"{cell}/{row[0]}" for row in await admin.fetch("SELECT tenant_id FROM strata.fence")}
            revisions |= {f"{cell}/{row[0]}" for row in await admin.fetch("SELECT schema_name FROM strata.revision")}
    async with as_admin(platform.first, f"{platform.prefix}_catalog") as admin:
        catalog = [
            await admin.fetchval(f"SELECT count(*) FROM {what}")
            for what in ("tenant WHERE status <> 'closed'", "placement", "cell", "tenant_document", "domain")
        ]
    return Traces(
        frozenset(databases),
        frozenset(roles),
        frozenset(schemas),
        frozenset(fences),
        frozenset(revisions),
        tuple(catalog),
    )
