"""An older PostgreSQL than the embedded one, from the distribution's package, for the length of a test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from strata.platform.embedded.account import Account, account_for, let_through
from strata.platform.embedded.postgres import MAJOR_VERSION, NOT_DURABLE, SETTINGS, SUPERUSER
from tests.builders.pgbouncer import free_port
from tests.servers import PASSWORD, PostgresServer

PACKAGES = Path("/usr/lib/postgresql")
"""A folder for each version, as Debian has them. Debian 12 comes with 15, the oldest that Strata works with."""
OLDEST = 15
MISSING = "no PostgreSQL of the distribution's is installed: apt-get install postgresql"
_NEWER_SETTINGS = {"max_active_replication_origins"}


def older_version() -> int:
    """The oldest that is installed and that Strata works with."""
    installed = [int(each.parent.parent.name) for each in PACKAGES.glob("[0-9]*/bin/postgres")]
    if not (older := [version for version in installed if OLDEST <= version < int(MAJOR_VERSION)]):
        pytest.skip(MISSING)
    return min(older)


@contextmanager
def older_postgres(directory: Path) -> Iterator[PostgresServer]:
    """A cluster of its own in `directory`, removed at the end."""
    programs = PACKAGES / str(older_version()) / "bin"
    data, port = directory / "data", free_port()
    data.mkdir(mode=0o700, parents=True)
    account = account_for(data)
    if account is not None:
        let_through(account, directory)
        account.own(data)
    password_file = data.with_name("password")
    password_file.write_text(PASSWORD)
    options = ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    _run([str(programs / "initdb"), f"--pgdata={data}", f"--username={SUPERUSER}", *options], account)
    settings = {**SETTINGS, **NOT_DURABLE, "port": str(port), "unix_socket_directories": ""}
    with (data / "postgresql.conf").open("a") as file:
        file.writelines(f"{key} = '{value}'\n" for key, value in settings.items() if key not in _NEWER_SETTINGS)
    control = [str(programs / "pg_ctl"), f"--pgdata={data}", "--wait", "--silent", f"--log={data / 'server.log'}"]
    _run([*control, "start"], account)
    try:
        yield PostgresServer(
            "older-postgres", f"postgresql://{SUPERUSER}:{PASSWORD}@127.0.0.1:{port}/postgres", "package"
        )
    finally:
        _run([*control, "--mode=fast", "stop"], account)
        shutil.rmtree(data)


def _run(command: list[str], account: Account | None) -> None:
    identity = account.as_popen() if account else {}
    environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False, **identity)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
