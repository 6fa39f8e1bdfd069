"""What asyncpg raises, by what it means. Without SQLAlchemy: commands that ask one question load neither."""

from __future__ import annotations

import asyncpg

LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""A connection is gone, could not be made, or did not answer in time (TimeoutError is an OSError).

InternalClientError: the server's farewell has come between two statements, and the socket's end not yet.
"""
NO_ANSWER = (asyncpg.PostgresError, *LOST)
"""Whatever keeps a statement from its answer: the connection is gone, or the server refuses."""
