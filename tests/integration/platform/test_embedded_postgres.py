from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from strata.platform.embedded import EmbeddedPostgres, Shutdown, processes
from strata.platform.embedded.directory import ServerDirectory, find_free_port
from strata.platform.errors import ConfigurationError


@pytest.fixture(scope="module")
def module_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture
def server(module_directory: Path) -> Iterator[EmbeddedPostgres]:
    """The same cluster for the whole file, started anew for each test."""
    with EmbeddedPostgres(module_directory, durable=False) as running:
        yield running


def show(server: EmbeddedPostgres, setting: str) -> str:
    with psycopg.connect(server.dsn()) as connection:
        row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
    assert row
    return str(row[0])


def test_the_cluster_is_made_for_moving_tenants(server: EmbeddedPostgres) -> None:
    assert show(server, "server_version").startswith("18.")
    assert show(server, "wal_level") == "logical"
    assert {show(server, name) for name in ("max_wal_senders", "max_replication_slots")} == {"64"}
    assert {show(server, name) for name in ("max_active_replication_origins", "max_logical_replication_workers")} == {
        "64"
    }
    assert show(server, "data_checksums") == "on"
    assert show(server, "server_encoding") == "UTF8"
    assert show(server, "max_connections") == "300"
    assert show(server, "fsync") == "off"


def test_a_durable_server_keeps_fsync(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path) as server:
        assert show(server, "fsync") == "on"
        assert show(server, "full_page_writes") == "on"


def test_only_the_password_opens_it_even_on_the_socket(server: EmbeddedPostgres) -> None:
    wrong = server.dsn().replace(server.directory.password(), "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)

    sockets = server.directory.path / "run"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"host={sockets} port={server.port} user=postgres dbname=postgres")


def test_secrets_are_readable_by_their_owner_alone(server: EmbeddedPostgres) -> None:
    assert (server.directory.path / "password").stat().st_mode & 0o777 == 0o600
    assert (server.directory.path / "data").stat().st_mode & 0o777 == 0o700
    assert not (server.directory.path / "password.initdb").exists()
    assert server.directory.password() not in server.directory.log_file.read_text()


def test_it_comes_back_on_the_same_port_with_its_data(server: EmbeddedPostgres) -> None:
    port = server.port
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    server.stop()
    assert not server.running
    server.start()

    assert server.port == port
    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_what_was_committed_survives_a_crash(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("CREATE TABLE crashed AS SELECT 42 AS answer")

    server.stop(Shutdown.IMMEDIATE)
    server.start()

    with psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SELECT answer FROM crashed").fetchone() == (42,)


def test_a_killed_postmaster_is_started_again_beside_its_dying_back_ends(server: EmbeddedPostgres) -> None:
    back_end = psycopg.connect(server.dsn())
    back_end.execute("SELECT 1")
    assert server.pid
    os.kill(server.pid, signal.SIGKILL)
    assert processes.wait_until_gone(server.pid, 5)

    server.start()

    assert show(server, "wal_level") == "logical"
    back_end.close()


def test_a_second_one_on_the_same_directory_is_refused_in_one_sentence(server: EmbeddedPostgres) -> None:
    second = EmbeddedPostgres(server.directory.data_dir)

    with pytest.raises(ConfigurationError) as refusal:
        second.start()

    assert f"process {os.getpid()}" in refusal.value.detail
    assert "--data-dir" in refusal.value.detail
    assert refusal.value.detail.count(". ") == 0
    assert show(server, "port") == str(server.port)


def test_a_port_taken_by_somebody_else_is_not_insisted_on(server: EmbeddedPostgres) -> None:
    port = server.port
    server.stop()

    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        server.start()

    assert server.port != port
    assert show(server, "port") == str(server.port)


def test_a_port_that_was_asked_for_is_insisted_on(tmp_path: Path) -> None:
    port = find_free_port()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", port))
        stranger.listen()

        with pytest.raises(ConfigurationError, match=f"Port {port} .* is in use"):
            EmbeddedPostgres(tmp_path, port=port, durable=False).start()

    with EmbeddedPostgres(tmp_path, port=port, durable=False) as server:
        assert server.port == port


def test_a_number_of_a_postmaster_that_now_is_a_strangers_does_not_matter(server: EmbeddedPostgres) -> None:
    """As after a restart of a container: postmaster.pid names a process that lives, and that is not PostgreSQL."""
    pid_file = server.directory.path / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    owner = pid_file.stat()
    server.stop(Shutdown.IMMEDIATE)
    pid_file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    os.chown(pid_file, owner.st_uid, owner.st_gid)

    server.start()

    assert server.running
    os.kill(os.getppid(), 0)


def test_a_cluster_made_half_way_is_made_again(tmp_path: Path) -> None:
    unfinished = tmp_path / "postgres-1" / "data.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")

    with EmbeddedPostgres(tmp_path, durable=False) as server:
        assert show(server, "server_version").startswith("18.")
    assert not unfinished.exists()


def test_a_setting_that_postgres_refuses_is_shown_with_the_last_log_lines(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path, durable=False, settings={"wal_level": "extreme"})

    with pytest.raises(ConfigurationError, match=r'invalid value for parameter "wal_level": "extreme"'):
        server.start()

    assert not server.running
    assert not server.directory.locked


def test_a_cluster_of_another_version_is_refused(server: EmbeddedPostgres) -> None:
    server.stop()
    version = server.directory.path / "data" / "PG_VERSION"
    version.write_text("17\n")
    try:
        with pytest.raises(ConfigurationError, match=r"made by PostgreSQL 17 .* pg_upgrade"):
            server.start()
    finally:
        version.write_text("18\n")


def test_a_lost_password_is_said_and_not_replaced(server: EmbeddedPostgres) -> None:
    server.stop()
    password = server.directory.path / "password"
    aside = password.rename(password.with_suffix(".aside"))
    try:
        with pytest.raises(ConfigurationError, match=r"password .* is gone"):
            server.start()
    finally:
        aside.rename(password)


def test_a_path_too_long_for_a_socket_does_without(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / ("long" * 25), durable=False) as server:
        assert show(server, "unix_socket_directories") == ""


def test_two_servers_stand_side_by_side(server: EmbeddedPostgres) -> None:
    with EmbeddedPostgres(server.directory.data_dir, "postgres-2", durable=False) as other:
        assert other.port != server.port
        assert show(other, "port") == str(other.port)
        assert show(server, "port") == str(server.port)


def test_a_lock_ends_with_the_process_and_is_not_inherited(tmp_path: Path) -> None:
    first, second = ServerDirectory(tmp_path, "x"), ServerDirectory(tmp_path, "x")
    first.make()
    first.lock()
    with pytest.raises(ConfigurationError):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()
