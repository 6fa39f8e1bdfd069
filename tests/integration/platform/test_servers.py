"""What every other test stands on: the servers are there, apart from each other, and able to move tenants."""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
import pytest
import redis

from tests.servers import PostgresServer, RedisServer, TestServers


def ask(server: PostgresServer, query: str) -> object:
    with psycopg.connect(server.admin_dsn) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row
    return row[0]


def test_two_clusters_are_there_for_an_administrator(
    postgres_server: PostgresServer, second_postgres_server: PostgresServer
) -> None:
    identities = set()
    for server in (postgres_server, second_postgres_server):
        assert int(str(ask(server, "SHOW server_version_num"))) >= 180000
        assert ask(server, "SHOW wal_level") == "logical"
        assert ask(server, "SELECT rolcreatedb AND rolcreaterole AND rolbypassrls FROM pg_roles WHERE rolname = user")
        identities.add(ask(server, "SELECT system_identifier FROM pg_control_system()"))
    assert len(identities) == 2


def test_redis_is_there(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.ping()


def test_a_dsn_names_another_database_and_another_person() -> None:
    server = PostgresServer("x", "postgresql://admin:a%40b@db.example:5544/postgres?sslmode=require", "environment")

    assert server.dsn("cell") == "postgresql://admin:a%40b@db.example:5544/cell?sslmode=require"
    assert server.dsn("cell", user="u", password="p") == "postgresql://u:p@db.example:5544/cell?sslmode=require"
    assert (server.host, server.port) == ("db.example", 5544)


def test_servers_named_in_the_environment_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_TEST_DATABASE_URLS", "postgresql://u@one/x postgresql://u@two/x")
    monkeypatch.setenv("STRATA_TEST_REDIS_URL", "redis://three/0")

    with ExitStack() as stack:
        named = TestServers(stack)
        assert [named.postgres(1).host, named.postgres(2).host] == ["one", "two"]
        assert named.redis() == RedisServer("redis://three/0", "environment")
