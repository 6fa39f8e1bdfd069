"""Procrastinate's connection to the catalog, which sits out a catalog that is away.

Procrastinate's worker ends when a statement fails: a restart of the catalog would end every worker, and what finished
meanwhile would be done again. Here a statement that finds nobody waits and is sent again until it is heard.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, LiteralString, TypeVar

import psycopg
import psycopg_pool
import structlog
from procrastinate import PsycopgConnector
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException

log = structlog.get_logger(__name__)

T = TypeVar("T")

_CHECKOUT_TIMEOUT_S = 5.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_HURRIED_S = 3.0


class CatalogAwayError(ConnectorException):
    """The catalog did not answer, and whoever asked does not want to wait for it."""


class PatientConnector(PsycopgConnector):
    def __init__(self, dsn: str, *, schema: str, pool_size: int) -> None:
        super().__init__(
            conninfo=dsn,
            kwargs={"options": f"-c search_path={schema}", "application_name": "strata-worker"},
            min_size=1,
            max_size=pool_size,
            timeout=_CHECKOUT_TIMEOUT_S,
            name="jobs",
            # Tries again for as long as the worker lives; giving up is the worker's business.
            reconnect_timeout=float("inf"),
        )
        self._give_up_at = float("inf")
        self.away_at = float("-inf")
        """When the catalog last failed to answer, by the monotonic clock."""

    def hurry(self) -> None:
        """From now on nobody waits long: the worker stops."""
        self._give_up_at = time.monotonic() + _HURRIED_S

    async def _create_pool(self, pool_args: dict[str, Any]) -> psycopg_pool.AsyncConnectionPool:
        # Without Procrastinate's check at each check-out, a round trip: a dead connection is met once, and replaced.
        return psycopg_pool.AsyncConnectionPool(**pool_args, open=False)

    async def execute_query_async(self, query: LiteralString, **arguments: Any) -> None:  # noqa: ANN401 - parameters
        await self._patiently(lambda: PsycopgConnector.execute_query_async(self, query, **arguments))

    async def execute_query_one_async(
        self,
        query: LiteralString,
        **arguments: Any,  # noqa: ANN401 - parameters
    ) -> dict[str, Any]:
        return await self._patiently(lambda: PsycopgConnector.execute_query_one_async(self, query, **arguments))

    async def execute_query_all_async(
        self,
        query: LiteralString,
        **arguments: Any,  # noqa: ANN401 - parameters
    ) -> list[dict[str, Any]]:
        return await self._patiently(lambda: PsycopgConnector.execute_query_all_async(self, query, **arguments))

    async def execute_once(self, query: LiteralString, **arguments: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - parameters
        """For a statement that must not be sent again by itself: what it finds by then may mean something else.

        Fails with CatalogAwayError instead; whether it was done is then unknown.
        """
        try:
            rows: list[dict[str, Any]] = await PsycopgConnector.execute_query_all_async(self, query, **arguments)
        except ConnectorException as error:
            if not _is_away(error):
                raise
            self.away_at = time.monotonic()
            raise CatalogAwayError from error
        return rows

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        # Procrastinate comes back once by itself, and gives up when the catalog is not there by then.
        while True:
            try:
                await PsycopgConnector.listen_notify(self, on_notification, channels)
            except ConnectorException as error:
                if not _is_away(error):
                    raise
            await asyncio.sleep(_LONGEST_PAUSE_S)

    async def _patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        pause_s, said = _FIRST_PAUSE_S, False
        while True:
            try:
                result = await act()
            except ConnectorException as error:
                if not _is_away(error):
                    raise
                self.away_at = time.monotonic()
                if self.away_at > self._give_up_at:
                    raise CatalogAwayError from error
                if not said:
                    log.warning("jobs.catalog_away", reason=str(error.__cause__))
                    said = True
            else:
                if said:
                    log.warning("jobs.catalog_back")
                return result
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load, hides nothing
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _is_away(error: ConnectorException) -> bool:
    return isinstance(error.__cause__, psycopg.OperationalError)
