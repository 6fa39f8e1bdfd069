"""Which index a slow statement wants: its generic plan, asked for in the tenant's own session, without anybody's values."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from strata.tenancy.context import TenantContext
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.errors import UnknownTenantError
from strata.tenancy.neighbours.advice import NewAdvice
from strata.tenancy.neighbours.book import NeighbourBook
from strata.tenancy.neighbours.tables import AdviceKind
from strata.tenancy.session import Tenants

log = structlog.get_logger(__name__)

_AT_ONCE = 5
_ANSWER_WITHIN_MS = 2000
_EXPLAINABLE = re.compile(r"(?i)(select|with|update|delete|insert)\b")
# (note = $1), ((p.on_hand)::bigint < $2), (sku ~~* $3): a column, then how it is compared.
_COMPARED = re.compile(r"\(*(?:\w+\.)?\"?([a-z_]\w*)\"?\)*(?:::[\w ]+?)?\)* (=|<=|>=|<|>) ")
_PARAMETER = re.compile(r"\$(\d+)")
_COLUMNS = text(
    "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(:name)) AND attnum > 0 AND NOT attisdropped"
)


class WantedIndex(msgspec.Struct, frozen=True):
    table: str
    columns: tuple[str, ...]
    """After tenant_id, with which every index begins: those compared for equality first."""


class Explainer:
    def __init__(self, book: NeighbourBook, tenants: Tenants, contexts: ContextCache) -> None:
        self._book = book
        self._tenants = tenants
        self._contexts = contexts

    async def explain_some(self) -> int:
        """The worst statements that have not been explained yet; returns how many there were."""
        waiting = await self._book.unexplained(_AT_ONCE)
        for tenant_id, fingerprint, statement, slowest_ms in waiting:
            try:
                plan, wanted = await self._explain(await self._contexts.get_by_id(tenant_id), statement)
            except (DBAPIError, asyncpg.PostgresError, UnknownTenantError) as error:
                # A literal stood where no parameter may, the table has gone: there is no plan, and never will be.
                log.info("neighbours.not_explained", fingerprint=fingerprint, error=str(error)[:200])
                plan, wanted = None, []
            await self._book.explained(tenant_id, fingerprint, plan)
            await self._book.propose(_advice(tenant_id, fingerprint, each, slowest_ms) for each in wanted)
        return len(waiting)

    async def _explain(self, context: TenantContext, statement: str) -> tuple[dict[str, Any] | None, list[WantedIndex]]:
        if not _EXPLAINABLE.match(statement):
            return None, []
        async with self._tenants.reading(context) as session:
            await session.execute(text(f"SET LOCAL statement_timeout = {_ANSWER_WITHIN_MS}"))
            connection = await session.connection()
            plan = await _generic_plan(connection, statement)
            wanted = []
            for table, condition in filters(plan):
                columns = set((await session.scalars(_COLUMNS, {"name": table})).all())
                if index := wanted_index(table, condition, columns):
                    wanted.append(index)
        return plan, wanted


async def _generic_plan(connection: AsyncConnection, statement: str) -> dict[str, Any]:
    """EXPLAIN (GENERIC_PLAN) would do, but the driver's protocol gives it values, NULLs, and it plans with those."""
    # Prepared statements outlive the transaction: nobody else can guess this one's name, and it goes in any case.
    name = f"s{secrets.token_hex(16)}"
    count = max((int(number) for number in _PARAMETER.findall(statement)), default=0)
    values = f"({', '.join(['NULL'] * count)})" if count else ""
    await connection.exec_driver_sql("SET LOCAL plan_cache_mode = force_generic_plan")
    await connection.exec_driver_sql(f"PREPARE {name} AS {statement}")
    try:
        async with connection.begin_nested():
            found = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) EXECUTE {name}{values}")
            document = found.scalar_one()
    finally:
        await connection.exec_driver_sql(f"DEALLOCATE {name}")
    plan: dict[str, Any] = (json.loads(document) if isinstance(document, str) else document)[0]["Plan"]
    return plan


def filters(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Tables whose rows are read to be thrown away, and by which condition."""
    if "Relation Name" in plan and "Filter" in plan:
        yield plan["Relation Name"], plan["Filter"]
    for child in plan.get("Plans", ()):
        yield from filters(child)


def wanted_index(table: str, condition: str, columns: set[str]) -> WantedIndex | None:
    compared = [(column, how) for column, how in _COMPARED.findall(condition) if column in columns - {"tenant_id"}]
    equal = dict.fromkeys(column for column, how in compared if how == "=")
    ranges = dict.fromkeys(column for column, how in compared if how != "=" and column not in equal)
    # Of several ranges an index serves one.
    chosen = (*equal, *list(ranges)[:1])
    return WantedIndex(table, chosen) if chosen else None


def _advice(tenant_id: UUID, fingerprint: str, index: WantedIndex, slowest_ms: int) -> NewAdvice:
    columns = ", ".join(("tenant_id", *index.columns))
    why = (
        f"A statement of its takes up to {slowest_ms} ms and reads rows of {index.table} only to throw them away; "
        f"an index on {index.table} ({columns}) would lead it to those it wants. A revision of the schema adds one."
    )
    action = {"table": index.table, "columns": ["tenant_id", *index.columns], "fingerprint": fingerprint}
    return NewAdvice(tenant_id, AdviceKind.INDEX, fingerprint, why, action)
