"""Strata is killed with its servers running, as root and as an ordinary user, and is started again."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
import redis

from strata.platform.embedded import EmbeddedPostgres, EmbeddedRedis, processes
from strata.platform.errors import ConfigurationError

PROGRAM = Path(__file__).with_name("killed_strata.py")
ROOT = Path(__file__).parents[3]
ORDINARY_USER = "nobody"


class Started(NamedTuple):
    process: subprocess.Popen[str]
    dsn: str
    postgres_pid: int
    redis_pid: int
    redis_url: str


Starter = Callable[..., Started]


def interpreter_for(user: str | None) -> str:
    """Ours may stand in a home that others cannot enter (pyenv): then the system's, if it is the same version."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/python{version}", "/usr/bin/python3"):
        command = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            outcome = subprocess.run(command, capture_output=True, text=True, check=True, user=user)
        except (OSError, subprocess.CalledProcessError):
            continue
        if outcome.stdout.strip() == version:
            return candidate
    pytest.skip(f"no Python {version} that {user} may run")


@pytest.fixture
def directory() -> Iterator[Path]:
    """Directly under /tmp: pytest's own folders are closed to other users."""
    path = Path(tempfile.mkdtemp(prefix="strata-killed-"))
    yield path
    EmbeddedPostgres(path).stop_orphan()
    EmbeddedRedis(path).stop_orphan()
    shutil.rmtree(path)


@pytest.fixture
def start(directory: Path) -> Iterator[Starter]:
    running: list[subprocess.Popen[str]] = []

    def start(user: str | None = None) -> Started:
        packages = sysconfig.get_path("purelib")
        process = subprocess.Popen(
            [interpreter_for(user), str(PROGRAM), str(directory)],
            env={"PYTHONPATH": f"{ROOT}:{packages}", "PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=user,
            cwd="/",
        )
        running.append(process)
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("started "):
                return Started(process, **json.loads(line.removeprefix("started ")))
        raise AssertionError("".join(said))

    yield start
    for process in running:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def write_a_row(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept (answer int)")
        connection.execute("INSERT INTO kept VALUES (42)")


def read_the_row(dsn: str) -> tuple[int, ...] | None:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT answer FROM kept").fetchone()


def test_the_next_one_takes_over_and_nothing_is_lost(directory: Path, start: Starter) -> None:
    killed = start()
    write_a_row(killed.dsn)
    open_session = psycopg.connect(killed.dsn)
    open_session.execute("SELECT pg_advisory_lock(1)")
    killed.process.kill()
    killed.process.wait()
    assert processes.is_alive(killed.postgres_pid)
    assert processes.is_alive(killed.redis_pid)

    with EmbeddedPostgres(directory, durable=False) as postgres, EmbeddedRedis(directory) as cache:
        assert postgres.dsn() == killed.dsn
        assert cache.url == killed.redis_url
        assert read_the_row(postgres.dsn()) == (42,)
        assert not processes.is_alive(killed.postgres_pid)
        assert not processes.is_alive(killed.redis_pid)
        with pytest.raises(psycopg.OperationalError):
            open_session.execute("SELECT 1")
        with psycopg.connect(postgres.dsn()) as connection:
            assert connection.execute("SELECT pg_try_advisory_lock(1)").fetchone() == (True,)
        with redis.Redis.from_url(cache.url) as client:
            assert client.ping()
    open_session.close()


def test_a_living_one_keeps_its_servers(directory: Path, start: Starter) -> None:
    living = start()

    with pytest.raises(ConfigurationError, match=f"process {living.process.pid}"):
        EmbeddedPostgres(directory, durable=False).start()
    with pytest.raises(ConfigurationError, match=f"process {living.process.pid}"):
        EmbeddedRedis(directory).start()

    write_a_row(living.dsn)
    assert read_the_row(living.dsn) == (42,)


def test_sigterm_stops_all_it_started(start: Starter) -> None:
    stopped = start()
    stopped.process.send_signal(signal.SIGTERM)

    assert stopped.process.wait(30) == 0
    assert not processes.is_alive(stopped.postgres_pid)
    assert not processes.is_alive(stopped.redis_pid)


def test_the_servers_are_out_of_reach_of_ctrl_c(start: Starter) -> None:
    started = start()

    ours = os.getsid(started.process.pid)
    assert os.getsid(started.postgres_pid) != ours
    assert os.getsid(started.redis_pid) != ours


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_runs_it_too_and_root_takes_over_as_that_user(directory: Path, start: Starter) -> None:
    user = pwd.getpwnam(ORDINARY_USER)
    os.chown(directory, user.pw_uid, user.pw_gid)
    killed = start(ORDINARY_USER)
    write_a_row(killed.dsn)
    killed.process.kill()
    killed.process.wait()

    with EmbeddedPostgres(directory, durable=False) as postgres:
        assert read_the_row(postgres.dsn()) == (42,)
        assert postgres.pid
        assert Path(f"/proc/{postgres.pid}").stat().st_uid == user.pw_uid

    again = start(ORDINARY_USER)
    assert read_the_row(again.dsn) == (42,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused by PostgreSQL")
def test_root_does_not_run_postgres_as_root(start: Starter) -> None:
    started = start()

    assert Path(f"/proc/{started.postgres_pid}").stat().st_uid != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a cluster that belongs to somebody else")
def test_an_ordinary_user_is_told_whose_cluster_it_is(directory: Path, start: Starter) -> None:
    stopped = start()
    stopped.process.terminate()
    stopped.process.wait(30)
    for path in (directory, directory / "postgres-1", directory / "postgres-1" / "lock"):
        os.chown(path, pwd.getpwnam(ORDINARY_USER).pw_uid, -1)

    with pytest.raises(AssertionError, match=r"belongs to .*: start Strata as that user or as root"):
        start(ORDINARY_USER)
