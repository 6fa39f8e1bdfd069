"""The folder of one embedded server: who runs it, on which port, with which password."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from pathlib import Path

from strata.platform.errors import ConfigurationError

# Below the ports that Linux and macOS hand to outgoing connections: a client that retries while the server is down
# could otherwise be given the server's own port, connect to itself and keep the server from coming back.
LOWEST_PORT = 15_000
HIGHEST_PORT = 32_000
LOG_ROTATES_AT_BYTES = 10 * 1024 * 1024


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def find_free_port() -> int:
    for _ in range(200):
        port = LOWEST_PORT + secrets.randbelow(HIGHEST_PORT - LOWEST_PORT)
        if is_free(port):
            return port
    raise ConfigurationError(f"No free port found between {LOWEST_PORT} and {HIGHEST_PORT} on 127.0.0.1.")


class ServerDirectory:
    def __init__(self, data_dir: Path, name: str) -> None:
        self.data_dir = data_dir.resolve()
        self.path = self.data_dir / name
        self.log_file = self.path / "server.log"
        self._port_file = self.path / "port"
        self._password_file = self.path / "password"
        self._lock: int | None = None

    def make(self) -> None:
        """0711 for root, whose servers run as another user and must get through; 0700 for everybody else."""
        mode = 0o711 if os.geteuid() == 0 else 0o700
        for folder in (self.data_dir, self.path):
            if not folder.is_dir():
                folder.mkdir(parents=True)
                folder.chmod(mode)

    def lock(self) -> None:
        """Held until `unlock` or the end of this process, however it ends; children do not inherit it."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
            os.close(descriptor)
            raise ConfigurationError(
                f"Another Strata (process {holder}) is running on {self.data_dir}: "
                "stop it, or give this one another directory with --data-dir."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._lock = descriptor

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def holder(self) -> str | None:
        """The process that has the lock; None: nobody, or there is no such folder."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            # Shared, and let go at once: those who ask at the same time do not take each other for a holder.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(descriptor, 32, 0).decode().strip() or "unknown"
        finally:
            os.close(descriptor)
        return None

    @property
    def locked(self) -> bool:
        return self._lock is not None

    def port(self, wanted: int | None, *, avoid: int | None = None) -> int:
        """The wanted port, else the one this server had last if it is free, else any free one."""
        if wanted is not None:
            if not is_free(wanted):
                raise ConfigurationError(f"Port {wanted} on 127.0.0.1 is in use: stop what uses it or name another.")
            port = wanted
        else:
            last = self._remembered_port()
            port = last if last is not None and last != avoid and is_free(last) else find_free_port()
        self._port_file.write_text(str(port))
        return port

    def _remembered_port(self) -> int | None:
        try:
            return int(self._port_file.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def has_password(self) -> bool:
        return self._password_file.is_file()

    def password(self) -> str:
        """Made on first use. Written whole before it gets its name, so that a crash leaves none rather than half."""
        if not self._password_file.is_file():
            unfinished = self._password_file.with_suffix(".new")
            unfinished.unlink(missing_ok=True)
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(24))
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._password_file)
        return self._password_file.read_text().strip()

    def open_log(self) -> int:
        if self.log_file.is_file() and self.log_file.stat().st_size > LOG_ROTATES_AT_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        return os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def last_log_lines(self, count: int = 12, *, since_bytes: int = 0) -> str:
        try:
            with self.log_file.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(since_bytes, size - 16_384))
                lines = file.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(lines[-count:]) or "(empty log)"
