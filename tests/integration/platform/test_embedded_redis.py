from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from strata.platform.embedded import EmbeddedRedis, processes
from strata.platform.embedded import redis as embedded_redis
from strata.platform.errors import ConfigurationError

# The client's own default tries for seconds.
NEVER_AGAIN = Retry(NoBackoff(), 0)


def test_it_answers_to_its_password_alone_and_keeps_nothing_on_disk(stoppable_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(stoppable_redis.url) as client:
        client.set("key", "value")
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}
    with (
        redis.Redis(port=stoppable_redis.port, retry=NEVER_AGAIN) as stranger,
        pytest.raises(redis.AuthenticationError, match=r"(?i)auth"),
    ):
        stranger.get("key")
    folder = stoppable_redis.directory.path
    assert (folder / "redis.conf").stat().st_mode & 0o777 == 0o600
    assert not list(folder.glob("*.rdb"))


def test_an_outage_ends_on_the_same_port(stoppable_redis: EmbeddedRedis) -> None:
    url = stoppable_redis.url
    with redis.Redis.from_url(url, retry=NEVER_AGAIN) as client:
        client.set("key", "value")

        stoppable_redis.stop()
        with pytest.raises(redis.ConnectionError):
            client.get("key")

        stoppable_redis.start()
        assert stoppable_redis.url == url
        assert client.get("key") is None


def test_one_that_was_killed_starts_again(stoppable_redis: EmbeddedRedis) -> None:
    assert stoppable_redis.pid
    os.kill(stoppable_redis.pid, signal.SIGKILL)
    assert processes.wait_until_gone(stoppable_redis.pid, 5)

    stoppable_redis.start()

    with redis.Redis.from_url(stoppable_redis.url) as client:
        assert client.ping()


def test_a_second_one_on_the_same_directory_is_refused(stoppable_redis: EmbeddedRedis) -> None:
    with pytest.raises(ConfigurationError, match="Another Strata"):
        EmbeddedRedis(stoppable_redis.directory.data_dir).start()


def test_the_one_inside_the_wheel_serves_where_none_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded_redis.program().parent.parent.name in embedded_redis.WHEELS

    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        assert client.ping()


def test_a_machine_without_any_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(embedded_redis, "WHEELS", ())

    with pytest.raises(ConfigurationError, match="apt-get install redis-server"):
        EmbeddedRedis(tmp_path).start()
