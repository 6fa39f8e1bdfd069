"""Foreign keys of a filled home: added unchecked, then validated side by side.

Whoever runs these must not be held by row-level security: PostgreSQL checks a new foreign key with a query as that
role, and under FORCE ROW LEVEL SECURITY found no dangling row where there was one, and marked the key valid
(copy_sessions refuses such a role).
"""

from __future__ import annotations

from strata.migrator.tables import ForeignKey, Table
from strata.platform.database.names import quoted

NOT_VALID = " NOT VALID"
# Before, a partitioned table's foreign key could only be added with its check, all in one.
NOT_VALID_ON_PARTITIONED = 180000


def additions(source: Table, target: Table, version_num: int) -> list[str]:
    """Statements that add what the target lacks."""
    there = {key.name for key in target.foreign_keys}
    return [
        f"ALTER TABLE {target.qualified} ADD CONSTRAINT {quoted(key.name)} {_unchecked(key, target, version_num)}"
        for key in source.foreign_keys
        if key.name not in there
    ]


def validations(source: Table, target: Table, version_num: int) -> list[str]:
    """Statements that check what was added unchecked. One that the source itself has never checked stays so."""
    checked = {key.name for key in target.foreign_keys if key.validated}
    return [
        f"ALTER TABLE {target.qualified} VALIDATE CONSTRAINT {quoted(key.name)}"
        for key in source.foreign_keys
        if key.validated and key.name not in checked and _can_wait(target, version_num)
    ]


def _unchecked(key: ForeignKey, target: Table, version_num: int) -> str:
    if key.validated and _can_wait(target, version_num):
        return key.definition + NOT_VALID
    return key.definition


def _can_wait(target: Table, version_num: int) -> bool:
    return not target.partitioned or version_num >= NOT_VALID_ON_PARTITIONED
