"""Give a filled home the indexes, constraints and statistics that the source has and it lacks (protocol, step 2)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from strata.migrator import constraints
from strata.migrator.copy_sessions import Warrant, defining
from strata.migrator.fitness import differences
from strata.migrator.tables import ConstraintKind, Home, Index, Table, TenantTables, describe
from strata.platform.database.names import quoted
from strata.platform.errors import StrataError

SORT_MEMORY = "256MB"
"""Of each build under way. PostgreSQL's default spills a million rows to disk."""
LONGEST_NAME_BYTES = 63


class SchemaDiffersError(StrataError):
    code = "schema-differs"
    title = "Source and target are not alike"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(
            f"After indexes and constraints were built, the target still differs: {' '.join(problems)} "
            "Cancel the move and bring both schemas to the same revision."
        )


class Step(msgspec.Struct, frozen=True):
    """Statements of one transaction: a death leaves all of them done or none."""

    what: str
    weight: int
    statements: tuple[str, ...]


class Built(msgspec.Struct, frozen=True):
    steps: int
    seconds: float


async def build(
    home: Home,
    source: TenantTables,
    *,
    workers: int = 2,
    warrant: Warrant | None = None,
    progress: Callable[[str], None] | None = None,
) -> Built:
    """Rerunnable: what is there already is left. Runs as the tables' owner, who row-level security does not hold.

    On a shared home, which keeps its indexes, only the statistics are renewed. `progress` hears of each step done.
    """
    begun = time.monotonic()
    site = _Site(home, warrant or Warrant(), workers, progress)
    target = await site.describe()
    steps = 0
    if home.exclusive:
        missing = [(source.by_name[table.name], table) for table in target.tables if table.name in source.by_name]
        steps += await site.run(_leaf_builds(missing))
        steps += await site.run(_joins(missing))
    steps += await site.run(
        Step(f"statistics of {table.name}", table.size_bytes, (f"ANALYZE {table.qualified}",))
        for table in target.tables
    )
    if home.exclusive:
        # One after the other: each locks two tables, and in a cycle of references they would lock each other out.
        steps += await site.run(_foreign_keys(source, target, constraints.additions), workers=1)
        steps += await site.run(_foreign_keys(source, target, constraints.validations))
        problems = [problem for _, problem in differences(source, await site.describe())]
        if problems:
            raise SchemaDiffersError(problems)
    return Built(steps, time.monotonic() - begun)


class _Site:
    def __init__(self, home: Home, warrant: Warrant, workers: int, progress: Callable[[str], None] | None) -> None:
        self._home = home
        self._warrant = warrant
        self._workers = workers
        self._progress = progress

    async def describe(self) -> TenantTables:
        async with defining(self._home, self._warrant) as connection:
            return await describe(connection, self._home.schema_name)

    async def run(self, steps: Iterable[Step], *, workers: int | None = None) -> int:
        """The heaviest first, several at once."""
        waiting = sorted(steps, key=lambda step: -step.weight)
        count = len(waiting)
        waiting.reverse()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(workers or self._workers, count)):
                    group.create_task(self._work(waiting))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return count

    async def _work(self, waiting: list[Step]) -> None:
        async with defining(self._home, self._warrant) as connection:
            await connection.execute("SELECT set_config('maintenance_work_mem', $1, false)", SORT_MEMORY)
            while waiting:
                step = waiting.pop()
                async with connection.transaction():
                    await self._warrant.hold(connection)
                    for statement in step.statements:
                        await connection.execute(statement)
                if self._progress is not None:
                    self._progress(step.what)


def _leaf_builds(missing: Iterable[tuple[Table, Table]]) -> Iterable[Step]:
    """Every index as a plain one, on each partition by itself: these can all be built at the same time."""
    for source, target in missing:
        for index in _lacking(source, target):
            if not _joinable(index):
                continue
            for relation in target.relations:
                name = _leaf_name(index, relation) if target.partitioned else index.name
                yield Step(f"index {index.name}", target.size_bytes, (index.definition(name, relation),))


def _joins(missing: Iterable[tuple[Table, Table]]) -> Iterable[Step]:
    """Indexes become constraints, and those of partitions their table's; done in no time, under an exclusive lock."""
    for source, target in missing:
        statements: list[str] = []
        for index in _lacking(source, target):
            name = quoted(index.name)
            if not _joinable(index):
                statements.append(f"ALTER TABLE {target.qualified} ADD CONSTRAINT {name} {index.constraint_definition}")
            elif target.partitioned:
                statements += _join_partitions(index, target)
            elif index.constraint is not None:
                statements.append(_using(index, target.qualified, index.name))
        if statements:
            yield Step(f"constraints of {target.name}", len(statements), tuple(statements))


def _join_partitions(index: Index, target: Table) -> Iterable[str]:
    """The table's index takes over an equal one of the partition instead of building another, if both are constraints."""
    if index.constraint is None:
        yield index.definition(index.name, target.qualified)
        return
    yield from (_using(index, relation, _leaf_name(index, relation)) for relation in target.relations)
    yield f"ALTER TABLE {target.qualified} ADD CONSTRAINT {quoted(index.name)} {index.constraint_definition}"


def _using(index: Index, relation: str, name: str) -> str:
    kind = "PRIMARY KEY" if index.constraint is ConstraintKind.PRIMARY_KEY else "UNIQUE"
    return f"ALTER TABLE {relation} ADD CONSTRAINT {quoted(name)} {kind} USING INDEX {quoted(name)}{index.deferral}"


def _joinable(index: Index) -> bool:
    """An exclusion constraint, or a key WITHOUT OVERLAPS (which is GiST), can only be added whole."""
    return index.constraint is None or (index.constraint is not ConstraintKind.EXCLUSION and index.method == "btree")


def _lacking(source: Table, target: Table) -> list[Index]:
    """An index that a build which died has not made a constraint yet is lacking still."""
    there = {(index.name, index.constraint) for index in target.indexes}
    return [index for index in source.indexes if (index.name, index.constraint) not in there]


def _leaf_name(index: Index, relation: str) -> str:
    """The same every time, so that what a build that died has made is found again."""
    digest = hashlib.sha256(f"{relation} {index.name}".encode()).hexdigest()[:10]
    stem = index.name.encode()[: LONGEST_NAME_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{stem}_{digest}"


def _foreign_keys(
    source: TenantTables, target: TenantTables, statements_of: Callable[[Table, Table, int], list[str]]
) -> Iterable[Step]:
    """One step a table: two foreign keys of one table cannot be validated at the same time."""
    for table in target.tables:
        if table.name in source.by_name:
            statements = statements_of(source.by_name[table.name], table, target.version_num)
            if statements:
                yield Step(f"foreign keys of {table.name}", table.size_bytes, tuple(statements))
