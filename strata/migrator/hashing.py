"""Numbers that stand for rows: equal rows give equal ones on every server, whatever its settings, collation or version.

A row is taken in its binary form (record_send), in which no setting has a say: NULL is not '', -0 is not 0, 1.0 is not
1.00, NaN is itself. Only the types that a database defined for itself, whose OIDs stand in that form, are taken as
text first; copy_sessions.py pins how text reads. The sum of 64-bit hashes of rows, which all differ in their key, depends
on no order, so each side may read in the order that suits it.
"""

from __future__ import annotations

from collections.abc import Sequence

from strata.migrator.tables import Column, Table
from strata.platform.database.names import quoted

_ROW_SEED, _KEY_SEED = 0, 1


def row_hash(columns: Sequence[Column]) -> str:
    """A bigint over the values of these columns of `t`; the columns must come in the same order on both sides."""
    return _record_hash(columns, _ROW_SEED)


def bucket(table: Table, buckets: int) -> str:
    """Which of so many groups (a power of two) a row of `t` belongs to, by its key alone."""
    if not table.key:
        return "0::bigint"
    return f"({_record_hash(table.key, _KEY_SEED)} & {buckets - 1})"


def _record_hash(columns: Sequence[Column], seed: int) -> str:
    values = ", ".join(f"t.{quoted(column.name)}{'' if column.built_in else '::text'}" for column in columns)
    # By bytes, so that no collation has a say either.
    return f"""hashtextextended(record_send(ROW({values}))::text COLLATE "C", {seed})"""
