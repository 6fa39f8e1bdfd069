"""What is asked of a pooled connection before it is given out, and what becomes of a dead one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from strata.platform.database.addresses import for_asyncpg
from strata.platform.database.liveness import engine_asking_first
from tests.builders.contexts import eventually
from tests.servers import PostgresServer


@pytest.fixture
async def engine(postgres_server: PostgresServer) -> AsyncIterator[AsyncEngine]:
    """With one connection."""
    engine = engine_asking_first(for_asyncpg(make_url(postgres_server.admin_dsn)), pool_size=1, max_overflow=0)
    yield engine
    await engine.dispose()


async def _driver(connection: AsyncConnection) -> asyncpg.Connection:
    driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, asyncpg.Connection)
    return driver


async def _pid(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        pid: int = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        return pid


async def _sent_before_it_is_given_out(engine: AsyncEngine) -> list[str]:
    sent: list[str] = []
    async with engine.connect() as connection:
        driver = await _driver(connection)
        driver.add_query_logger(lambda record: sent.append(record.query))
    async with engine.connect():
        await asyncio.sleep(0)  # the logger is called by the loop
        return list(sent)


async def test_a_connection_is_asked_in_one_round_trip(engine: AsyncEngine) -> None:
    assert await _sent_before_it_is_given_out(engine) == ["SELECT"]


async def test_one_that_the_server_has_ended_is_replaced(engine: AsyncEngine, postgres_server: PostgresServer) -> None:
    async with engine.connect() as connection:
        driver = await _driver(connection)
    _end(postgres_server, driver.get_server_pid())
    await eventually(driver.is_closed)
    assert await _pid(engine) != driver.get_server_pid()


async def test_one_whose_end_nobody_has_heard_of_yet_is_replaced(
    engine: AsyncEngine, postgres_server: PostgresServer
) -> None:
    """The loop had no turn since: the connection looks alive until it is asked."""
    before = await _pid(engine)
    _end(postgres_server, before)
    assert await _pid(engine) != before


def _end(server: PostgresServer, pid: int) -> None:
    with psycopg.connect(server.admin_dsn) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
