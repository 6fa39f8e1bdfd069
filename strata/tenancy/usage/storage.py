"""What a tenant keeps: rows, counted, and bytes, estimated. Measured in the tenant's own session, the same on every tier."""

from __future__ import annotations

import msgspec
from sqlalchemy import text

from strata.platform.database.names import quoted
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants

# Sizes and rows of whole tables, which the tenant may share with others. reltuples is -1 before the first ANALYZE.
_TABLES = text(
    """
    SELECT c.relname AS name,
        sum(pg_total_relation_size(part.relid))::bigint AS size_bytes,
        sum(greatest(leaf.reltuples, 0))::bigint AS all_rows
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    CROSS JOIN LATERAL (
        SELECT c.oid AS relid WHERE c.relkind = 'r'
        UNION ALL SELECT t.relid FROM pg_partition_tree(c.oid) t WHERE t.isleaf AND c.relkind = 'p'
    ) part
    JOIN pg_class leaf ON leaf.oid = part.relid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    GROUP BY c.relname
    ORDER BY c.relname
    """
)


class Stored(msgspec.Struct, frozen=True):
    rows: int
    sizes: dict[str, int]
    """Bytes by table."""

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes.values())


async def measure(tenants: Tenants, context: TenantContext) -> Stored:
    """One table after the other, a transaction each: no snapshot is held while much is counted."""
    async with tenants.reading(context) as session:
        tables = (await session.execute(_TABLES)).all()
    rows, sizes = 0, {}
    for table in tables:
        async with tenants.reading(context) as session:
            own = await session.scalar(text(f"SELECT count(*) FROM {quoted(table.name)}")) or 0  # noqa: S608 - a table's name
        rows += own
        if own:
            # The statistics may be older than the rows.
            sizes[table.name] = table.size_bytes * own // max(table.all_rows, own)
    return Stored(rows, sizes)
