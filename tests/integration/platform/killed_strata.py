"""Stands for a Strata that will be killed: starts the servers under a directory, says where, and waits.

Usage: python killed_strata.py DIRECTORY
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from strata.platform.embedded import EmbeddedPostgres, EmbeddedRedis


def main() -> None:
    directory = Path(sys.argv[1])
    postgres = EmbeddedPostgres(directory, durable=False)
    redis = EmbeddedRedis(directory)
    postgres.start()
    redis.start()
    started = {
        "dsn": postgres.dsn(),
        "postgres_pid": postgres.pid,
        "redis_pid": redis.pid,
        "redis_url": redis.url,
    }
    # Only now: children inherit the mask, and a Redis that never sees SIGTERM does not stop.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.stdout.write(f"started {json.dumps(started)}\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    redis.stop()
    postgres.stop()


if __name__ == "__main__":
    main()
