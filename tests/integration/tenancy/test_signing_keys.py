"""Signing keys in the catalog: several processes, one current key."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from uuid import uuid4

import jwt
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from strata.platform.settings import TokenSettings
from strata.platform.tokens import InvalidTokenError, TokenAuthority
from strata.runtime import Runtime
from strata.tenancy.catalog.signing_keys import CatalogSigningKeys
from strata.tenancy.catalog.tables import SigningKeyRow


@pytest.fixture
async def empty_catalog(runtime: Runtime) -> AsyncIterator[AsyncEngine]:
    """A schema with no key in it, beside the catalog's own tables."""
    schema = f"keys_{secrets.token_hex(4)}"
    url = runtime.catalog_url.set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, connect_args={"server_settings": {"search_path": schema}})
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE SCHEMA {schema}"))
        await connection.run_sync(SigningKeyRow.__table__.create)  # type: ignore[attr-defined]
    yield engine
    async with engine.begin() as connection:
        await connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    await engine.dispose()


def authority_on(engine: AsyncEngine, runtime: Runtime, lifetime_s: int = 3600) -> TokenAuthority:
    return TokenAuthority(
        CatalogSigningKeys(engine, lifetime_s), runtime.key_port, TokenSettings(lifetime_s=lifetime_s)
    )


def issue(authority: TokenAuthority) -> bytes:
    return authority.issue(subject="a", tenant=uuid4(), role="viewer", permissions=[]).encode()


async def test_processes_that_start_at_once_agree_on_the_key(empty_catalog: AsyncEngine, runtime: Runtime) -> None:
    authorities = [authority_on(empty_catalog, runtime) for _ in range(5)]
    await asyncio.gather(*(authority.start() for authority in authorities))
    assert len({authority.jwks["keys"][0]["kid"] for authority in authorities}) == 1
    token = issue(authorities[0])
    for authority in authorities:
        assert (await authority.verify(token)).sub == "a"


async def test_rotations_at_once_leave_one_current_key_and_lose_none(
    empty_catalog: AsyncEngine, runtime: Runtime
) -> None:
    authorities = [authority_on(empty_catalog, runtime) for _ in range(3)]
    await asyncio.gather(*(authority.start() for authority in authorities))
    before = issue(authorities[0])
    await asyncio.gather(*(authority.rotate() for authority in authorities))
    async with empty_catalog.connect() as connection:
        states = (await connection.execute(text("SELECT state, retires_at FROM signing_key"))).all()
    assert [state for state, retires_at in states if retires_at is None] == ["current"]
    late = authority_on(empty_catalog, runtime)
    await late.start()
    for token in (before, *map(issue, authorities)):
        assert (await late.verify(token)).sub == "a"


async def test_a_key_retires_when_the_last_token_that_it_signed_has_expired(
    empty_catalog: AsyncEngine, runtime: Runtime
) -> None:
    authority = authority_on(empty_catalog, runtime, lifetime_s=3600)
    await authority.start()
    old = issue(authority)
    await authority.rotate()
    assert len(authority.jwks["keys"]) == 2
    async with empty_catalog.begin() as connection:
        await connection.execute(text("UPDATE signing_key SET retires_at = now() WHERE state = 'previous'"))
    late = authority_on(empty_catalog, runtime)
    await late.start()
    assert [key["kid"] for key in late.jwks["keys"]] != [jwt.get_unverified_header(old)["kid"]]
    with pytest.raises(InvalidTokenError):
        await late.verify(old)


async def test_nothing_in_the_table_tells_the_private_key(empty_catalog: AsyncEngine, runtime: Runtime) -> None:
    authority = authority_on(empty_catalog, runtime)
    await authority.start()
    secret = authority._current().private_key.private_numbers().private_value
    async with empty_catalog.connect() as connection:
        row = str((await connection.execute(text("SELECT signing_key::text FROM signing_key"))).scalar_one())
    assert "local:v1:" in row
    for told in (str(secret), f"{secret:x}"):
        assert told not in row
