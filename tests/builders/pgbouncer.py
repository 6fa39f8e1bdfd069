"""A real PgBouncer in transaction mode, in front of a test server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import PostgresServer

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
MISSING = "pgbouncer is not installed: apt-get install pgbouncer"

_CONFIGURATION = """
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 1000
query_wait_timeout = {wait_s}
ignore_startup_parameters = extra_float_digits
{account}
"""


@contextmanager
def pgbouncer(
    server: PostgresServer,
    users: Mapping[str, str],
    directory: Path,
    *,
    pool_size: int,
    port: int | None = None,
    wait_s: int = 20,
) -> Iterator[str]:
    """Its address, host:port. `users`: passwords by role; `pool_size`: connections to the server for each database."""
    if PROGRAM is None:
        pytest.skip(MISSING)
    listen = port or free_port()
    directory.mkdir(exist_ok=True)
    # It gives root's rights up for somebody who must be able to read these.
    account = "user = nobody" if os.getuid() == 0 else ""
    for parent in (directory, *directory.parents):
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    list_of_users = directory / "users.txt"
    list_of_users.write_text("".join(f'"{name}" "{password}"\n' for name, password in users.items()))
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(
        _CONFIGURATION.format(
            host=server.host,
            port=server.port,
            listen=listen,
            users=list_of_users,
            size=pool_size,
            wait_s=wait_s,
            account=account,
        )
    )
    log = directory / "pgbouncer.log"
    with log.open("w") as output:
        process = subprocess.Popen([PROGRAM, str(configuration)], stdout=output, stderr=output)
        try:
            _wait_for(listen, process, log)
            yield f"127.0.0.1:{listen}"
        finally:
            process.terminate()
            process.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"PgBouncer did not start: {log.read_text()}")
