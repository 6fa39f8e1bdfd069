"""A runtime for a command that ends, and what commands say of themselves."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

from strata.cli.whereabouts import settings_for, with_servers
from strata.platform.errors import StrataError
from strata.platform.on_demand import loaded
from strata.platform.settings import Settings
from strata.runtime import Runtime, open_runtime
from strata.tenancy.audit.origin import Origin, acting_for

# Requests give Redis milliseconds; a command has time, and its one announcement should arrive.
_PATIENCE_WITH_REDIS_S = 2.0

T = TypeVar("T")


@asynccontextmanager
async def connected(data_dir: Path | None) -> AsyncIterator[Runtime]:
    settings = with_servers(settings_for(data_dir))
    cache = settings.cache.model_copy(update={"redis_timeout_s": _PATIENCE_WITH_REDIS_S})
    try:
        async with open_runtime(settings.model_copy(update={"cache": cache})) as runtime:
            try:
                yield runtime
            except Exception as error:  # noqa: BLE001 - raised again, or what it means
                explained = await loaded("strata.cli.silence:of")(runtime.catalog_url, runtime.registry, error)
                _raise_instead(explained, error)
    except StrataError:
        raise
    except Exception as error:  # noqa: BLE001 - raised again, or what it means
        _raise_instead(loaded("strata.cli.silence:at_opening")(settings, error), error)


def _raise_instead(explained: StrataError | None, error: Exception) -> NoReturn:
    if explained is None:
        raise error
    raise explained from error


def perform(act: Callable[[Runtime], Awaitable[T]], data_dir: Path | None) -> T:
    """Run one act of a command that ends, connected to catalog and Redis."""

    async def connect_and_act() -> T:
        with acting_for(_origin):
            async with connected(data_dir) as runtime:
                return await act(runtime)

    return asyncio.run(connect_and_act())


def actor() -> str:
    """Who the audit says did it: the operating system's word for whoever runs the command."""
    try:
        return f"cli/{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"cli/uid-{os.getuid()}"


def _origin() -> Origin:
    return Origin(actor(), socket.gethostname(), "operating system")


def tenant_url(settings: Settings, label: str, port: int | None = None) -> str:
    """Where a browser finds <label>.<base domain>."""
    http = settings.http
    port = http.port if port is None else port
    usual = {"http": 80, "https": 443}.get(http.public_scheme)
    return f"{http.public_scheme}://{label}.{http.base_domain}" + ("" if port == usual else f":{port}")
