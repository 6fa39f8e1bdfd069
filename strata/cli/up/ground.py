"""The PostgreSQL and Redis that `strata up` stands on: those that settings name, else embedded ones of its own."""

from __future__ import annotations

import asyncio

from pydantic import SecretStr
from sqlalchemy import URL

from strata.cli.whereabouts import Running
from strata.platform.database import addresses
from strata.platform.embedded import EmbeddedPostgres, EmbeddedRedis
from strata.platform.errors import ConfigurationError
from strata.platform.settings import Settings

CATALOG_DATABASE = "strata"
MOST_SERVERS = 2


class Ground:
    """`claim()` first: it is cheap, and refuses a directory on which another Strata runs before anything is started."""

    def __init__(self, settings: Settings, servers: int | None) -> None:
        self._settings = settings
        self._data_dir = settings.data_dir
        self._postgres: list[EmbeddedPostgres] = []
        self._redis: EmbeddedRedis | None = None
        self._starting: list[asyncio.Task[None]] = []
        self._announced = False
        if settings.database_url is None:
            self._postgres = [EmbeddedPostgres(self._data_dir, f"postgres-{n}") for n in self._numbers(servers)]
        elif servers is not None and servers > 1:
            message = (
                "STRATA_DATABASE_URL names the server to use: register more with strata server add, or unset it for "
                "embedded ones."
            )
            raise ConfigurationError(message)
        if settings.redis_url is None:
            self._redis = EmbeddedRedis(self._data_dir)

    def _numbers(self, wanted: int | None) -> range:
        """At least as many as there were: tenants live on the second one, too."""
        there = [n for n in range(1, MOST_SERVERS + 1) if EmbeddedPostgres(self._data_dir, f"postgres-{n}").initialised]
        return range(1, max([wanted or 1, *there]) + 1)

    @property
    def embedded(self) -> list[EmbeddedPostgres | EmbeddedRedis]:
        return [*self._postgres, *([self._redis] if self._redis else [])]

    def claim(self) -> None:
        for server in self.embedded:
            server.directory.make()
            server.directory.lock()

    async def start(self) -> Settings:
        """Start what is ours, side by side, and return the settings with every address in them."""
        self._starting = [asyncio.create_task(asyncio.to_thread(server.start)) for server in self.embedded]
        if self._starting:
            # Not gather(): cancelled, it would cancel the tasks, and nobody would know when their threads are done.
            await asyncio.wait(self._starting)
        for start in self._starting:
            start.result()
        found: dict[str, object] = {}
        if self._postgres:
            found["database_url"] = SecretStr(self._postgres[0].dsn(CATALOG_DATABASE))
        if self._redis:
            found["redis_url"] = SecretStr(self._redis.url)
        return self._settings.model_copy(update=found)

    def announce(self, pid: int, http_port: int) -> None:
        """Let commands in other terminals find the servers that are ours."""
        if not self.embedded:
            return
        self._announced = True
        Running(
            pid=pid,
            http_port=http_port,
            database_url=self._postgres[0].dsn(CATALOG_DATABASE) if self._postgres else None,
            redis_url=self._redis.url if self._redis else None,
        ).write(self._data_dir)

    def server_urls(self, catalog_url: URL) -> dict[str, URL]:
        """The clusters that hold cells, by name, as their administrator."""
        if not self._postgres:
            return {"server-1": catalog_url}
        return {f"server-{n}": addresses.parse(server.dsn()) for n, server in enumerate(self._postgres, start=1)}

    async def stop(self) -> None:
        """Everything that was started, also what was still starting."""
        # A thread that starts a server cannot be cancelled; it is let finish, then its server is stopped.
        await asyncio.gather(*self._starting, return_exceptions=True)
        if self._announced:
            Running.forget(self._data_dir)
        await asyncio.gather(*(asyncio.to_thread(server.stop) for server in self.embedded))
