"""The statement says what the live database enforces: true on every tier, and no longer true once a wall is taken away."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator

import jwt
import msgspec
import pytest

from strata.app import StrataApp, create_app
from strata.identity.roles import Role
from strata.platform.tokens import InvalidTokenError
from strata.runtime import Runtime
from strata.tenancy.attestation.statement import SIGNATURE_TYPE, Attestation, CannotAttestError, SignedStatement
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.command import Command, environment_for
from tests.builders.events import until
from tests.builders.http import client_of, token_for_staff
from tests.builders.inventory import api_client, stocked
from tests.builders.platform import Platform, Tenantry, admin_of, new_platform, standing
from tests.servers import PostgresServer, RedisServer


@pytest.fixture(scope="module")
async def platform(
    postgres_server: PostgresServer,
    second_postgres_server: PostgresServer,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Platform:
    """One whose walls may be taken away."""
    return new_platform(postgres_server, second_postgres_server, redis_server, tmp_path_factory.mktemp("attestation"))


@pytest.fixture(scope="module")
async def runtime(platform: Platform) -> AsyncIterator[Runtime]:
    async with standing(platform) as made:
        yield made


@pytest.fixture(scope="module")
async def tenants(runtime: Runtime) -> dict[Tier, TenantContext]:
    make = Tenantry(runtime)
    made = {}
    for tier in Tier:
        made[tier] = await make(tier)
        await stocked(runtime, made[tier], on_hand=1)
    await make(Tier.SHARED)
    return made


async def attest(runtime: Runtime, context: TenantContext) -> SignedStatement:
    """Now: not what was said some seconds ago."""
    fresh = Attestation(runtime.catalog_engine, runtime.registry, runtime.contexts, runtime.tokens)
    return await fresh.attest(context.id)


@pytest.mark.parametrize("tier", Tier)
async def test_every_check_passes_on_every_tier(
    runtime: Runtime, tenants: dict[Tier, TenantContext], tier: Tier
) -> None:
    made = (await attest(runtime, tenants[tier])).statement
    assert made.passed, [check for check in made.checks if not check.passed]
    found = {check.name: check.found for check in made.checks}
    assert {"row-level-security", "roles", "lockdown", "fence", "server", "seal", "capability", "denial"} == set(found)
    assert "product" in found["row-level-security"]
    if tier is Tier.DEDICATED:
        assert "no other customer" in found["denial"]
    else:
        assert "finds rows in" in found["denial"]
    assert made.place.tier is tier
    if tier is not Tier.DEDICATED:
        assert (made.place.server, made.place.region) == ("one", "north")


@pytest.mark.parametrize(
    ("takes_away", "gives_back", "failing"),
    [
        (
            "ALTER TABLE {s}.product DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE {s}.product ENABLE ROW LEVEL SECURITY",
            {"row-level-security", "seal", "denial"},
        ),
        (
            "ALTER TABLE {s}.product NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE {s}.product FORCE ROW LEVEL SECURITY",
            {"row-level-security"},
        ),
        ("CREATE POLICY wide ON {s}.bin USING (true)", "DROP POLICY wide ON {s}.bin", {"row-level-security", "denial"}),
        ("GRANT TRUNCATE ON {s}.bin TO {app}", "REVOKE TRUNCATE ON {s}.bin FROM {app}", {"row-level-security"}),
        ("ALTER ROLE {app} BYPASSRLS", "ALTER ROLE {app} NOBYPASSRLS", {"roles", "seal", "denial"}),
        (
            "UPDATE strata.fence SET epoch = epoch + 1 WHERE tenant_id = '{id}'",
            "UPDATE strata.fence SET epoch = epoch - 1 WHERE tenant_id = '{id}'",
            {"fence"},
        ),
        (
            "UPDATE strata.cell SET timeline = '0000FFFF'",
            "UPDATE strata.cell SET timeline = left(pg_walfile_name(pg_current_wal_lsn()), 8)",
            {"server"},
        ),
        (
            "GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO PUBLIC",
            "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) FROM PUBLIC",
            {"lockdown"},
        ),
    ],
)
async def test_a_wall_that_is_gone_is_missed(
    runtime: Runtime,
    platform: Platform,
    tenants: dict[Tier, TenantContext],
    takes_away: str,
    gives_back: str,
    failing: set[str],
) -> None:
    context = tenants[Tier.SHARED]
    names = {"s": context.placement.schema_name, "app": platform.app_role, "id": context.id}
    async with admin_of(runtime, context.placement.cell) as admin:
        await admin.execute(takes_away.format(**names))
        try:
            made = (await attest(runtime, context)).statement
        finally:
            await admin.execute(gives_back.format(**names))
    assert not made.passed
    assert failing <= {check.name for check in made.checks if not check.passed}
    assert (await attest(runtime, context)).statement.passed


async def test_it_is_signed_by_a_published_key_and_no_token(
    runtime: Runtime, tenants: dict[Tier, TenantContext]
) -> None:
    made = await attest(runtime, tenants[Tier.SCHEMA])
    document = json.loads(msgspec.json.encode(made))
    spelt = json.dumps(document["statement"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(spelt.encode()).hexdigest() == made.digest
    header = jwt.get_unverified_header(made.signature)
    assert header["typ"] == SIGNATURE_TYPE
    [key] = [each for each in runtime.tokens.jwks["keys"] if each["kid"] == header["kid"]]
    assert jwt.decode(made.signature, jwt.PyJWK(key), algorithms=["ES256"]) == {"sha256": made.digest}
    with pytest.raises(InvalidTokenError):
        await runtime.tokens.verify(made.signature.encode())


async def test_tenant_and_staff_read_it(runtime: Runtime, tenants: dict[Tier, TenantContext]) -> None:
    app: StrataApp = create_app(runtime)
    context = tenants[Tier.SHARED]
    async with api_client(app, runtime, context) as api:
        made = (await api.get("/api/v1/isolation")).json()
        assert made["statement"]["passed"] is True
        assert (await api.get("/api/v1/isolation")).json() == made, "within ten seconds nothing is looked at again"
        page = await api.get("/account/isolation", headers={"Accept": "text/html"})
        assert made["digest"] in page.text
        assert "password" not in page.text
    async with api_client(app, runtime, context, Role.OPERATOR) as operator:
        assert (await operator.get("/api/v1/isolation")).status_code == 403
    async with client_of(app, "console.localhost", token=token_for_staff(runtime.tokens)) as staff:
        assert (await staff.get(f"/staff/v1/tenants/{context.slug}/isolation")).json() == made
        assert made["digest"] in (await staff.get(f"/tenants/{context.slug}/isolation")).text


async def test_the_command_says_it_and_fails_with_it(
    runtime: Runtime,
    platform: Platform,
    tenants: dict[Tier, TenantContext],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment_for(platform).items():
        monkeypatch.setenv(name, value)
    strata, context = Command(capsys), tenants[Tier.SHARED]
    assert (await strata.json("tenant", "attest", context.slug))["statement"]["slug"] == context.slug
    assert "row-level-security" in (await strata("tenant", "attest", context.slug)).out
    async with admin_of(runtime, context.placement.cell) as admin:
        await admin.execute(f"ALTER TABLE {context.placement.schema_name}.bin NO FORCE ROW LEVEL SECURITY")
        try:
            said = await strata("tenant", "attest", context.slug)
        finally:
            await admin.execute(f"ALTER TABLE {context.placement.schema_name}.bin FORCE ROW LEVEL SECURITY")
    assert said.code == 1
    assert "FAILED" in said.out


@pytest.mark.parametrize("held", ["strata.fence", "product"])
async def test_a_server_that_shuts_down_in_the_middle_gives_no_verdict(
    runtime: Runtime, tenants: dict[Tier, TenantContext], held: str
) -> None:
    """Neither passed nor failed: the checks stand at a lock when their sessions are ended, as a shutdown ends them."""
    context = tenants[Tier.SCHEMA]
    table = held if "." in held else f'"{context.placement.schema_name}".{held}'
    async with admin_of(runtime, context.placement.cell) as admin:

        async def ended() -> bool:
            """Those that wait for the lock, and nobody else's."""
            rows = await admin.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = $1::regclass AND NOT granted", table
            )
            return bool(rows)

        async with admin.transaction():
            await admin.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            asking = asyncio.create_task(attest(runtime, context))
            await until(ended, "nothing waits for the lock")
            with pytest.raises(CannotAttestError) as refusal:
                await asyncio.wait_for(asking, 30)
    assert refusal.value.headers["Retry-After"] == "1"
    assert (await attest(runtime, context)).statement.passed
