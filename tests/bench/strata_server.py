"""Strata's own application in a process of its own; STRATA_* variables say on what."""

from __future__ import annotations

import argparse

import uvloop

from strata.app import create_app
from strata.platform.logging import configure_logging
from strata.platform.settings import Settings
from strata.runtime import open_runtime
from tests.bench.serving import serve


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    configure_logging("app")
    async with open_runtime(Settings()) as runtime:
        await serve(create_app(runtime), given.port)


if __name__ == "__main__":
    uvloop.run(main())
