"""Where the servers are: named by settings, else those that a `strata up` is running on the data directory."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from pydantic import SecretStr

from strata.platform.errors import ConfigurationError, StrataError, UnavailableError
from strata.platform.on_demand import loaded
from strata.platform.settings import Settings

_FILE = "running.json"
_CATALOG_SERVER = "postgres-1"
_CONNECT_TIMEOUT_S = 2.0


class NotRunningError(ConfigurationError):
    code = "not-running"
    title = "Strata is not running"

    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            f"No Strata is running on {data_dir}: start it there with strata up, name another directory with "
            "--data-dir, or set STRATA_DATABASE_URL and STRATA_REDIS_URL."
        )


class PostgresSilentError(UnavailableError):
    code = "postgres-silent"
    title = "PostgreSQL does not answer"

    def __init__(self, data_dir: Path, process: str, log_file: Path) -> None:
        super().__init__(
            f"Strata (process {process}) runs on {data_dir}, but its PostgreSQL does not answer: it is started again by "
            f"itself, so try again in a moment; {log_file} says what keeps it."
        )


class Running(msgspec.Struct, frozen=True):
    """What `strata up` leaves in its data directory for commands in other terminals.

    Only addresses of embedded servers, whose passwords stand beside it anyway; readable by the same user alone.
    """

    pid: int
    http_port: int
    database_url: str | None
    redis_url: str | None

    def write(self, data_dir: Path) -> None:
        draft = data_dir / f"{_FILE}.new"
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(self))
        draft.replace(data_dir / _FILE)

    @staticmethod
    def read(data_dir: Path) -> Running | None:
        try:
            return msgspec.json.decode((data_dir / _FILE).read_bytes(), type=Running)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None
        except PermissionError:
            raise ConfigurationError(
                f"{data_dir / _FILE} belongs to another user: run this command as the user who runs strata up."
            ) from None

    @staticmethod
    def forget(data_dir: Path) -> None:
        (data_dir / _FILE).unlink(missing_ok=True)


def settings_for(data_dir: Path | None) -> Settings:
    """The environment's settings; the option outranks STRATA_DATA_DIR."""
    return Settings() if data_dir is None else Settings(data_dir=data_dir)


def with_servers(settings: Settings) -> Settings:
    """The settings with the servers' addresses in them; NotRunningError when nobody says where they are."""
    if settings.database_url is not None and settings.redis_url is not None:
        return settings
    running = Running.read(settings.data_dir)
    if running is None:
        raise NotRunningError(settings.data_dir)
    found: dict[str, object] = {"http": settings.http.model_copy(update={"port": running.http_port})}
    for name in ("database_url", "redis_url"):
        address = getattr(running, name)
        if getattr(settings, name) is None and address is not None:
            found[name] = SecretStr(address)
    if "database_url" in found and running.database_url is not None and not _answers(running.database_url):
        raise _silent(settings.data_dir)
    return settings.model_copy(update=found)


def _silent(data_dir: Path) -> StrataError:
    """By the lock, which ends with its process: the number in running.json may be somebody else's after a reboot."""
    directory = loaded("strata.platform.embedded.directory:ServerDirectory")(data_dir, _CATALOG_SERVER)
    holder = directory.holder()
    return NotRunningError(data_dir) if holder is None else PostgresSilentError(data_dir, holder, directory.log_file)


def _answers(database_url: str) -> bool:
    url = urlsplit(database_url)
    try:
        with socket.create_connection((url.hostname or "127.0.0.1", url.port or 5432), timeout=_CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False
