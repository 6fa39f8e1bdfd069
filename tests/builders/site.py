"""Strata served over HTTP on a port of its own, in this process, for browsers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager

import httpx
import msgspec
import uvicorn

from strata.app import create_app
from strata.identity.roles import Role
from strata.identity.tokens import staff_token, tenant_token
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from tests.builders.contexts import eventually

# None of it is used; httpx makes one for each client, which takes longer than a request.
_TLS = ssl.create_default_context()


class Site(msgspec.Struct, frozen=True):
    runtime: Runtime
    port: int

    def url(self, label: str, path: str = "/") -> str:
        """`label`: a tenant's slug, or «console»."""
        return f"http://{label}.localhost:{self.port}{path}"

    def token(self, context: TenantContext, role: Role = Role.ADMINISTRATOR, **options: int) -> str:
        return tenant_token(self.runtime.tokens, context.id, role, subject="robin", **options)

    def staff_token(self) -> str:
        return staff_token(self.runtime.tokens, subject="ada")

    def client(self, context: TenantContext) -> httpx.AsyncClient:
        headers = {"Host": f"{context.slug}.localhost", "Authorization": f"Bearer {self.token(context)}"}
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=headers, verify=_TLS)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Ctrl-C is pytest's."""
        yield


@asynccontextmanager
async def serving(runtime: Runtime) -> AsyncIterator[Site]:
    config = uvicorn.Config(create_app(runtime), port=0, log_config=None, lifespan="off", ws="none")
    server = _Server(config)
    running = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        yield Site(runtime, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        await running
