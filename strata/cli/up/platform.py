"""Makes what the servers hold match what `strata up` promises; each act finds what was done before and does the rest."""

from __future__ import annotations

import asyncpg
from sqlalchemy import URL

from strata.runtime import Runtime
from strata.tenancy.catalog.audit import SYSTEM
from strata.tenancy.catalog.registry import UnknownCellError
from strata.tenancy.cell.inspection import application
from strata.tenancy.provisioning.servers import add_server

REGION = "local"
_ANY = "any"


async def prepare_servers(runtime: Runtime, urls: dict[str, URL]) -> None:
    """Register servers that are new or have moved; on each a shared cell of the same number; all cells to head."""
    settings = runtime.settings
    for name, url in urls.items():
        if not await _is_registered(runtime, name, url):
            await add_server(
                runtime.registry,
                name,
                url,
                region=REGION,
                role_prefix=settings.role_prefix,
                actor=SYSTEM,
                statement_timeout_ms=settings.pool.statement_timeout_ms,
            )
    await runtime.upgrades.cells()
    for name in urls:
        await runtime.cells.add_shared(_cell_of(name), name, actor=SYSTEM)


def _cell_of(server: str) -> str:
    return server.replace("server", "cell")


async def _is_registered(runtime: Runtime, server: str, url: URL) -> bool:
    """Whether the catalog has the server at this address with a password that works.

    Registering it again would renew the application's password, and cut off other processes that run on the server.
    """
    try:
        known = await runtime.registry.admin_url_of_cell(_cell_of(server))
        cell = await runtime.registry.cell(_cell_of(server))
    except UnknownCellError:
        return False
    if known.set(database=_ANY) != url.set(database=_ANY):
        return False
    try:
        async with application(cell):
            return True
    except (asyncpg.PostgresError, OSError, TimeoutError):
        return False
