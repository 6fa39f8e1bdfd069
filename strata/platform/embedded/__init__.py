"""Servers that Strata runs itself when it is given none: PostgreSQL and Redis under the data directory.

Each server has a folder of its own there (`postgres-1`, `redis`), holding its data, its password, the port it last
had, its log, and a lock that says which process runs it. A server outlives a Strata that was killed; the next one on
the same directory recognises it, stops it cleanly and starts it again: nothing committed is lost, and no session of
the dead process keeps a lock.

All calls block; from async code: `await asyncio.to_thread(server.start)`.
"""

from strata.platform.embedded.postgres import EmbeddedPostgres, Shutdown
from strata.platform.embedded.redis import EmbeddedRedis
from strata.platform.embedded.standby import EmbeddedStandby

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "EmbeddedStandby", "Shutdown"]
