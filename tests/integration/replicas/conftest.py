"""A platform of this folder's own: its standby is paused, killed and promoted."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from strata.platform.embedded import EmbeddedPostgres, EmbeddedStandby
from tests.builders.platform import Tenantry, new_platform, standing
from tests.builders.standbys import Replicated, register
from tests.servers import PostgresServer, RedisServer


@pytest.fixture(scope="session")
def primary_with_standby() -> Iterator[tuple[EmbeddedPostgres, EmbeddedStandby]]:
    """Directly under /tmp: PostgreSQL's account must get there when the tests run as root."""
    with tempfile.TemporaryDirectory(prefix="strata-standby-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        data_dir = Path(folder) / "data"
        with (
            EmbeddedPostgres(data_dir, "primary", durable=False) as primary,
            EmbeddedStandby(data_dir, "standby", primary.dsn(), durable=False) as standby,
        ):
            yield primary, standby


@pytest.fixture(scope="session")
async def replicated(
    postgres_server: PostgresServer,
    primary_with_standby: tuple[EmbeddedPostgres, EmbeddedStandby],
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Replicated]:
    primary, standby = primary_with_standby
    second = PostgresServer("primary", primary.dsn(), "embedded")
    platform = new_platform(postgres_server, second, redis_server, tmp_path_factory.mktemp("replicated"))
    async with standing(platform) as runtime:
        await register(runtime, standby)
        yield Replicated(runtime, primary, standby)


@pytest.fixture(scope="session")
def replicated_tenant(replicated: Replicated) -> Tenantry:
    """`tenant = await replicated_tenant(Tier.SHARED, cell=SECOND_CELL)`."""
    return Tenantry(replicated.runtime)
