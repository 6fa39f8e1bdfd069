"""What a connection does before a tenant arrives in its cell, so that the tenant's first request there does not wait for it.

A back end that is new to a database reads that database's catalog, compiles `strata.enter` and plans each statement
before it answers for the first time; that took longer than the whole cut-over. Nothing here changes anything, and
nothing depends on it: what goes wrong is left to the tenant's own transaction to meet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from uuid import UUID

import asyncpg

from strata.platform.database.names import quoted
from strata.tenancy.cell.door import CellSecret, Isolation, entry_message
from strata.tenancy.cell.pooled import Pooled
from strata.tenancy.model import Placement, Tier

MOST_STATEMENTS = 30
_PLANS_WITHOUT_VALUES_SINCE = 16
"""The PostgreSQL that has EXPLAIN (GENERIC_PLAN). On an older one statements are prepared, and planned when they run."""


def lately_asked(connections: Iterable[Pooled], schema_name: str) -> Sequence[str]:
    """What was last asked in this schema, the latest first. The texts: no value of anybody's is in them."""
    for pooled in connections:
        if pooled.schema_name == schema_name:
            return pooled.statements()[:MOST_STATEMENTS]
    return ()


async def rehearse(
    pooled: Pooled,
    secret: CellSecret,
    tenant_id: UUID,
    placement: Placement,
    statements: Sequence[str],
    sent_with_commit: str,
) -> None:
    """Knock at the door, which is still shut, then prepare and plan in the tenant's schema what it has lately asked.

    `sent_with_commit`: what is sent without being prepared, and so is not among the statements.
    """
    with contextlib.suppress(asyncpg.PostgresError):
        await pooled.driver.enter(entry_message(secret, tenant_id, placement, Isolation.READ_COMMITTED, read_only=True))
    await pooled.driver.leave()
    if statements:
        await _prepare(pooled, placement, statements, sent_with_commit)


async def _prepare(pooled: Pooled, placement: Placement, statements: Sequence[str], sent_with_commit: str) -> None:
    role = f"SET LOCAL ROLE {quoted(placement.schema_name)};" if placement.tier is Tier.SCHEMA else ""
    driver = pooled.driver
    plans = driver.get_server_version().major >= _PLANS_WITHOUT_VALUES_SINCE
    await driver.execute(f"BEGIN READ ONLY;SET LOCAL search_path = {quoted(placement.schema_name)}, pg_temp;{role}")
    try:
        for statement in statements:
            await driver.execute("SAVEPOINT one")
            with contextlib.suppress(asyncpg.PostgresError):
                await pooled.prepare(statement)
                if plans:
                    await driver.execute(f"EXPLAIN (GENERIC_PLAN) {statement}")
            await driver.execute("ROLLBACK TO one")
        with contextlib.suppress(asyncpg.PostgresError):
            await driver.execute(f"EXPLAIN {sent_with_commit}")
    finally:
        if not driver.is_closed():
            await driver.execute("ROLLBACK")
