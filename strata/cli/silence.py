"""Which database is silent: the catalog's or a cell's, on which server; asked when a command has failed, not before."""

from __future__ import annotations

import asyncio

import asyncpg
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from strata.cli.failures import (
    CatalogMissingError,
    CredentialsRefusedError,
    DatabaseUnreachableError,
    named,
)
from strata.platform.database import addresses
from strata.platform.database.administration import administrator
from strata.platform.database.connecting import DatabaseMissingError, ServerUnreachableError
from strata.platform.errors import ConfigurationError, StrataError, UnavailableError
from strata.platform.settings import Settings
from strata.tenancy.attestation.statement import CannotAttestError
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.errors import CellUnavailableError

_PATIENCE_S = 3.0
_NEW_ADDRESS = "or give its new address with strata server add"


class CatalogSilentError(UnavailableError):
    code = "catalog-silent"
    title = "The catalog does not answer"

    def __init__(self, where: str) -> None:
        super().__init__(
            f"The catalog's PostgreSQL at {where} does not answer: start it (strata up starts the embedded one), or "
            "correct STRATA_DATABASE_URL."
        )


class CellSilentError(UnavailableError):
    code = "cell-silent"
    title = "A cell does not answer"

    def __init__(self, cell: str, server: str, where: str) -> None:
        super().__init__(
            f"Cell «{cell}» does not answer: start PostgreSQL on its server «{server}» ({where}), {_NEW_ADDRESS}; the "
            "catalog answers.",
            extra={"cell": cell, "server": server},
        )


class ServersSilentError(UnavailableError):
    code = "server-silent"
    title = "A server does not answer"

    def __init__(self, silent: list[str]) -> None:
        super().__init__(f"No answer from {', '.join(silent)}: start PostgreSQL there, {_NEW_ADDRESS}.")


class CellSpoiltError(ConfigurationError):
    code = "cell-refuses"
    title = "A cell cannot be used"

    def __init__(self) -> None:
        super().__init__(
            "A cell's server has no such database, or refuses the user or the password that the catalog holds for it: "
            "strata doctor says which, and what to do."
        )


class SilentNoMoreError(UnavailableError):
    code = "answers-again"
    title = "It answers again"

    def __init__(self, cell: str | None) -> None:
        which = "A database" if cell is None else f"Cell «{cell}»"
        super().__init__(
            f"{which} did not answer the command and does answer now: run it again; when it goes on, strata doctor says more."
        )


def at_opening(settings: Settings, error: Exception) -> StrataError | None:
    """Of an error before the catalog was reached; None: this is not about silence."""
    if isinstance(named(error), DatabaseUnreachableError) and settings.database_url is not None:
        return CatalogSilentError(_where(addresses.parse(settings.database_url.get_secret_value())))
    return None


async def of(catalog_url: URL, registry: Registry, error: Exception) -> StrataError | None:
    """Of an error of a command that was at work; None: this is not about silence."""
    failure = named(error)
    try:
        match failure:
            case CellUnavailableError() | CannotAttestError():
                return await _of_cell(registry, failure.cell)
            case DatabaseUnreachableError():
                return await _of_any(registry)
            case CatalogMissingError() | CredentialsRefusedError():
                # The catalog let the command in.
                return CellSpoiltError()
            case _:
                return None
    except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return CatalogSilentError(_where(catalog_url))


async def _of_cell(registry: Registry, cell: str) -> StrataError:
    url = await registry.admin_url_of_cell(cell)
    silence = await _asked(url)
    if silence is None:
        return SilentNoMoreError(cell)
    if isinstance(silence, DatabaseMissingError):
        return CellSpoiltError()
    (server,) = [each.server for each in await registry.cells() if each.name == cell]
    return CellSilentError(cell, server, _where(url))


async def _of_any(registry: Registry) -> StrataError:
    servers = await registry.servers()
    answers = await asyncio.gather(*[_asked(await registry.admin_url_of_server(each.name)) for each in servers])
    silent = [f"server «{each.name}» ({each.address})" for each, said in zip(servers, answers, strict=True) if said]
    return ServersSilentError(silent) if silent else SilentNoMoreError(None)


async def _asked(url: URL) -> ServerUnreachableError | None:
    try:
        async with asyncio.timeout(_PATIENCE_S), administrator(url):
            return None
    except TimeoutError as error:
        return ServerUnreachableError(addresses.libpq(url), error)
    except ServerUnreachableError as error:
        return error


def _where(url: URL) -> str:
    return f"{url.host or 'the local socket'}:{url.port or 5432}"
