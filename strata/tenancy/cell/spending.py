"""What statements cost a tenant, measured where SQLAlchemy sends them: no round trip, two clock readings a statement."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any, Protocol

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext


class Spent:
    """Of one transaction."""

    __slots__ = ("by_statement", "database_ns", "rows", "statements")

    def __init__(self) -> None:
        self.statements = 0
        self.rows = 0
        self.database_ns = 0
        self.by_statement: dict[str, list[int]] = {}
        """How often, nanoseconds, rows and the longest one's nanoseconds."""


class Spender(Protocol):
    spent: Spent


def watch(engine: Engine) -> None:
    event.listen(engine, "before_cursor_execute", _begin)
    event.listen(engine, "after_cursor_execute", _end)
    event.listen(engine, "handle_error", _fail)


def _begin(_connection: Connection, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:  # noqa: ANN401 - SQLAlchemy's own
    if context is not None:
        context.begun_ns = perf_counter_ns()


def _end(connection: Connection, cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool) -> None:  # noqa: ANN401 - as above
    _note(connection, statement, context, max(cursor.rowcount, 0))


def _fail(error: ExceptionContext) -> None:
    # What was cancelled after half a minute has cost half a minute.
    if error.connection is not None and error.statement is not None:
        _note(error.connection, error.statement, error.execution_context, 0)


def _note(connection: Connection, statement: str, context: Any, rows: int) -> None:  # noqa: ANN401 - as above
    spent: Spent | None = getattr(connection.connection, "spent", None)
    begun_ns = getattr(context, "begun_ns", 0)
    if spent is None or not begun_ns:
        return
    took_ns = perf_counter_ns() - begun_ns
    spent.statements += 1
    spent.rows += rows
    spent.database_ns += took_ns
    known = spent.by_statement.get(statement)
    if known is None:
        spent.by_statement[statement] = [1, took_ns, rows, took_ns]
        return
    known[0] += 1
    known[1] += took_ns
    known[2] += rows
    known[3] = max(known[3], took_ns)
