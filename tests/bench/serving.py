"""The same web server, with the same settings, for every application that is ours to serve."""

from __future__ import annotations

import uvicorn
from litestar.types import ASGIApp


async def serve(app: ASGIApp, port: int) -> None:
    """As strata/cli/up/serving.py configures it; until SIGTERM."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
    )
    await uvicorn.Server(config).serve()
