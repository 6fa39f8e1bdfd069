"""Makes what the servers hold match what `strata up` promises; each act finds what was done before and does the rest."""

from __future__ import annotations

import asyncpg
from sqlalchemy import URL, select
from sqlalchemy.ext.asyncio import AsyncSession

from strata.runtime import Runtime
from strata.tenancy.catalog.audit import SYSTEM
from strata.tenancy.catalog.tables import ServerRow
from strata.tenancy.cell.inspection import application
from strata.tenancy.model import CellKind
from strata.tenancy.provisioning.servers import add_server

REGION = "local"
_ANY = "any"


async def prepare_servers(runtime: Runtime, urls: dict[str, URL]) -> None:
    """Register servers that are new or have moved, bring all cells to head, and see that each server has a shared one."""
    names = [await _register(runtime, name, url) for name, url in urls.items()]
    await runtime.upgrades.cells()
    having = {cell.server for cell in await runtime.registry.cells() if cell.kind is CellKind.SHARED}
    for name in names:
        # One that was left half made is finished, too.
        if name not in having or name in urls:
            await runtime.cells.add_shared(name.replace("server", "cell"), name, actor=SYSTEM)


async def _register(runtime: Runtime, name: str, url: URL) -> str:
    """See that the catalog reaches the server, and return the name it has there.

    What works is left alone: registering again would renew the application's password, and cut off other processes.
    """
    known = await _known_servers(runtime)
    if name not in known:
        there = (other for other, address in known.items() if (address.host, address.port) == (url.host, url.port))
        name = next(there, name)
    if name in known and _same(known[name], url) and await _lets_application_in(runtime, name):
        return name
    await add_server(
        runtime.registry,
        name,
        url,
        region=REGION,
        role_prefix=runtime.settings.role_prefix,
        actor=SYSTEM,
        statement_timeout_ms=runtime.settings.pool.statement_timeout_ms,
    )
    return name


async def _known_servers(runtime: Runtime) -> dict[str, URL]:
    async with AsyncSession(runtime.catalog_engine) as session:
        rows = (await session.scalars(select(ServerRow))).all()
    return {row.name: await runtime.registry.admin_url(row) for row in rows}


def _same(one: URL, other: URL) -> bool:
    return one.set(database=_ANY) == other.set(database=_ANY)


async def _lets_application_in(runtime: Runtime, server: str) -> bool:
    """A death between the new password and its row in the catalog would leave it out."""
    for cell in await runtime.registry.cells():
        if cell.server == server and cell.kind is CellKind.SHARED:
            try:
                async with application(await runtime.registry.cell(cell.name)):
                    return True
            except (asyncpg.PostgresError, OSError, TimeoutError):
                return False
    return False
