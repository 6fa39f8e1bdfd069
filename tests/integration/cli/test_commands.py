"""Every command that ends: its JSON, its effect, its exit code, and what it says when it fails."""

from __future__ import annotations

import io
import json
import secrets
import stat
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from strata import __version__
from strata.identity.roles import Role
from strata.platform.tokens import Audience
from strata.runtime import Runtime
from strata.tenancy.model import TenantStatus, Tier
from tests.builders.command import Command, environment_for
from tests.builders.platform import Platform, Tenantry, _clear, new_platform

pytestmark = pytest.mark.usefixtures("runtime")


def new_slug() -> str:
    return f"c{secrets.token_hex(5)}"


@pytest.mark.parametrize("tier", Tier)
async def test_a_tenant_is_made_shown_held_and_deleted(strata: Command, runtime: Runtime, tier: Tier) -> None:
    slug = new_slug()
    created = await strata.json("tenant", "create", slug, "--tier", tier, "--name", "A Name")
    assert created["created"] is True
    assert (created["slug"], created["tier"], created["name"], created["status"]) == (slug, tier, "A Name", "active")
    assert created["url"] == f"http://{slug}.localhost:8000"
    assert (await strata.json("tenant", "create", slug, "--tier", tier))["created"] is False

    assert [found["slug"] for found in (await strata.json("tenant", "list", "--search", slug))["tenants"]] == [slug]
    shown = await strata.json("tenant", "show", slug)
    assert shown["id"] == created["id"]
    assert [entry["action"] for entry in shown["history"]] == ["tenant.create"]

    suspended = await strata.json("tenant", "suspend", slug, "--reason", "invoice 7")
    assert (suspended["status"], suspended["status_reason"]) == ("suspended", "invoice 7")
    # Announced: the process that served it before knows at once.
    context = await runtime.contexts.fresh(UUID(created["id"]))
    assert context.status is TenantStatus.SUSPENDED
    assert (await strata.json("tenant", "read-only", slug, "--reason", "x"))["status"] == "read-only"
    assert (await strata.json("tenant", "resume", slug))["status"] == "active"

    refused = await strata("tenant", "delete", slug, "--json")
    assert (refused.code, refused.error["code"]) == (1, "deletion-unconfirmed")
    proof = await strata.json("tenant", "delete", slug, "--yes")
    assert proof["slug"] == slug
    assert proof["remains"]
    assert set(proof["remains"].values()) == {0}
    assert (await strata("tenant", "show", slug)).code == 1


async def test_options_of_a_new_tenant_are_heeded(strata: Command) -> None:
    parent, child = new_slug(), new_slug()
    await strata.json("tenant", "create", parent)
    made = await strata.json(
        "tenant", "create", child, "--parent", parent, "--plan", "free", "--region", "south", "--cell", "cell-2"
    )
    assert (made["plan"], made["region"], made["cell"]) == ("free", "south", "cell-2")
    impossible = await strata("tenant", "create", new_slug(), "--region", "south", "--cell", "cell-1", "--json")
    assert (impossible.code, impossible.error["code"]) == (1, "no-room")


async def test_lists_are_paged(strata: Command) -> None:
    start = new_slug()
    for letter in "abc":
        await strata.json("tenant", "create", f"{start}{letter}")
    first = await strata.json("tenant", "list", "--search", start, "--limit", "2")
    assert [each["slug"] for each in first["tenants"]] == [f"{start}a", f"{start}b"]
    rest = await strata.json("tenant", "list", "--search", start, "--limit", "2", "--after", first["next_after"])
    assert [each["slug"] for each in rest["tenants"]] == [f"{start}c"]
    assert rest["next_after"] is None


async def test_a_platform_is_set_up_by_hand(
    strata: Command, platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = new_platform(platform.first, platform.second, platform.redis, tmp_path)
    for name, value in environment_for(own).items():
        monkeypatch.setenv(name, value)
    try:
        assert (await strata("tenant", "list", "--json")).error["code"] == "catalog-missing"
        assert (await strata.json("db", "upgrade"))["outcomes"] == []
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{own.second.admin_dsn}\n".encode())))
        added = await strata.json("server", "add", "main", "--region", "west")
        assert (added["name"], added["region"], added["cells"]) == ("main", "west", 0)
        assert own.second.admin_dsn not in json.dumps(await strata.json("server", "list"))
        assert (await strata("server", "add", "again", own.second.admin_dsn, "--json")).error["code"] == "conflict"
        cell = await strata.json("cell", "add", "small", "--server", "main", "--capacity", "1")
        assert (cell["created"], cell["region"], cell["capacity"], cell["state"]) == (True, "west", 1, "open")
        assert (await strata.json("cell", "add", "small", "--server", "main"))["created"] is False

        drained = await strata.json("cell", "drain", "small")
        assert (drained["draining"], drained["wave"]) == (True, None)
        assert (await strata("tenant", "create", "first", "--json")).error["code"] == "no-room"
        assert (await strata.json("cell", "drain", "small", "--undo"))["draining"] is False
        assert (await strata.json("tenant", "create", "first"))["cell"] == "small"
        assert (await strata("tenant", "create", "second", "--json")).error["code"] == "no-room"
        assert (await strata.json("server", "drain", "main", "--plan-only"))["draining"] is True
        assert (await strata("tenant", "create", "third", "--tier", "dedicated", "--json")).error["code"] == "no-room"
        assert (await strata.json("server", "drain", "main", "--undo"))["draining"] is False
        [only] = (await strata.json("cell", "list"))["cells"]
        assert (only["name"], only["tenants"]) == ("small", 1)
        assert (await strata.json("doctor"))["healthy"] is True
    finally:
        for server in (own.first, own.second):
            await _clear(server, own.prefix)


async def test_tokens_open_what_they_say(strata: Command, runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    issued = await strata.json("token", "issue", context.slug, "--role", "operator", "--subject", "ada")
    claims = await runtime.tokens.verify(issued["token"].encode())
    assert (claims.tenant, claims.role, claims.sub) == (context.id, Role.OPERATOR, "ada")
    plain = await strata("token", "issue", context.slug, "--role", "viewer", "--lifetime-hours", "1")
    short = await runtime.tokens.verify(plain.out.strip().encode())
    assert short.exp - short.iat == 3600
    staff = await strata.json("token", "issue", "--staff")
    assert (await runtime.tokens.verify(staff["token"].encode())).aud is Audience.STAFF
    assert staff["url"] == "http://console.localhost:8000"


async def test_revisions_are_shown_and_brought_up_to_date(strata: Command, platform: Platform) -> None:
    assert (await strata.json("db", "upgrade"))["outcomes"] == []
    status = await strata.json("db", "status")
    assert status["current"] is True
    assert {"catalog", "cell-1", "cell-2"} <= {schema["cell"] for schema in status["schemas"]}


async def test_what_was_agreed_with_a_tenant(
    strata: Command, runtime: Runtime, tenant_on: Tenantry, tmp_path: Path
) -> None:
    context = await tenant_on(Tier.SHARED)
    document = tmp_path / "branding.json"
    document.write_text('{"theme": "dark"}')
    await strata.json("tenant", "set", context.slug, "branding", document)
    assert (await runtime.contexts.fresh(context.id)).branding.theme == "dark"
    document.write_text('{"theme": 3}')
    assert (await strata("tenant", "set", context.slug, "branding", document)).code == 1
    missing = await strata("tenant", "set", context.slug, "branding", tmp_path / "none.json", "--json")
    assert (missing.code, missing.error["code"]) == (1, "unreadable-document")

    host = f"{context.slug}.example.com"
    assert (await strata.json("domain", "add", context.slug, host))["hostname"] == host
    assert [each["hostname"] for each in (await strata.json("domain", "list", context.slug))["domains"]] == [host]
    again = await strata.json("domain", "add", context.slug, host.upper())
    assert [again] == (await strata.json("domain", "list", context.slug))["domains"]
    actions = [entry["action"] for entry in (await strata.json("tenant", "show", context.slug))["history"]]
    assert actions.count("domain.add") == 1
    small = await tenant_on(Tier.SHARED, plan="starter")
    missing = await strata("domain", "add", small.slug, f"{small.slug}.example.com", "--json")
    assert (missing.code, missing.error["code"], missing.error["feature"]) == (1, "feature-missing", "custom-domain")
    await strata.json("tenant", "grant", small.slug, "add-on", "own-domain", "--reason", "order 4711")
    assert (await strata.json("domain", "add", small.slug, f"{small.slug}.example.com"))["hostname"]
    other = await tenant_on(Tier.SHARED)
    taken = await strata("domain", "add", other.slug, host, "--json")
    assert (taken.code, taken.error["code"]) == (1, "conflict")
    assert (await strata("domain", "add", context.slug, "acme.localhost")).code == 1
    assert "Host header" not in (await strata("domain", "add", context.slug, "not a name")).err
    await strata.json("domain", "remove", context.slug, host)
    assert (await strata.json("domain", "list", context.slug))["domains"] == []


async def test_seeding_fills_once(strata: Command, runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SCHEMA)
    [first] = (await strata.json("seed", context.slug, "--assortment", "groceries"))["tenants"]
    assert first["seeded"] is True
    assert first["movements"] > 100
    [second] = (await strata.json("seed", context.slug))["tenants"]
    assert second["seeded"] is False


@pytest.mark.parametrize(
    ("words", "code", "name"),
    [
        (["tenant", "show", "nobody-here"], 1, "unknown-tenant"),
        (["tenant", "create", "Not A Slug"], 1, "invalid-input"),
        (["tenant", "create", "console"], 1, "invalid-input"),
        (["tenant", "create", "fine", "--tier", "schema", "--plan", "free"], 1, "invalid-input"),
        (["tenant", "suspend", "nobody-here", "--reason", "x"], 1, "unknown-tenant"),
        (["tenant", "suspend", "acme"], 2, "usage"),
        (["tenant", "read-only", "acme"], 2, "usage"),
        (["tenant", "read-only", "acme", "--reason", " "], 2, "usage"),
        (["domain", "add", "acme", "not a name"], 1, "invalid-input"),
        (["tenant", "delete", "nobody-here", "--yes"], 1, "unknown-tenant"),
        (["server", "drain", "nowhere"], 1, "unknown-server"),
        (["server", "add", "bad", "mysql://x"], 1, "configuration"),
        (["server", "add", "gone", "postgresql://a:b@127.0.0.1:1/postgres"], 1, "server-unreachable"),
        (["cell", "add", "c", "--server", "nowhere"], 1, "unknown-server"),
        (["cell", "drain", "nowhere"], 1, "unknown-cell"),
        (["token", "issue", "nobody-here", "--role", "viewer"], 1, "unknown-tenant"),
        (["token", "issue"], 2, "usage"),
        (["token", "issue", "acme", "--role", "emperor"], 2, "usage"),
        (["token", "issue", "acme", "--staff"], 2, "usage"),
        (["tenant", "create"], 2, "usage"),
        (["tenant", "create", "x", "--tier", "golden"], 2, "usage"),
        (["frobnicate"], 2, "usage"),
        (["up", "--port", "99999"], 2, "usage"),
    ],
)
async def test_failures_have_a_code_and_a_sentence(strata: Command, words: list[str], code: int, name: str) -> None:
    said = await strata(*words, "--json")
    assert (said.code, said.error["code"]) == (code, name)
    assert said.error["detail"].endswith(".")
    assert said.out == ""
    plain = await strata(*words)
    assert plain.code == code
    assert plain.err.strip() == said.error["detail"]


def test_log_lines_go_to_standard_error_whatever_the_command(tmp_path: Path) -> None:
    """Also of one that ends before it has connected to anything: the document has standard output for itself."""
    program = (
        "import structlog; from strata.cli import run\n"
        "run(['--version']); structlog.get_logger('strata').warning('said')"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert process.stdout == f"{__version__}\n"
    assert json.loads(process.stderr)["event"] == "said"


async def test_an_unreachable_catalog_is_a_sentence(strata: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_DATABASE_URL", "postgresql://strata:hunter2@127.0.0.1:1/strata")
    for words in (["tenant", "list"], ["db", "upgrade"], ["db", "status"]):
        said = await strata(*words)
        assert said.code == 1
        assert "hunter2" not in said.err
        assert len(said.err.strip().splitlines()) == 1


async def test_a_wrong_password_is_a_sentence(
    strata: Command, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = platform.first.dsn(f"{platform.prefix}_catalog", user="postgres", password="hunter2")
    monkeypatch.setenv("STRATA_DATABASE_URL", wrong)
    said = await strata("tenant", "list", "--json")
    if platform.first.origin == "environment" and said.code == 0:
        pytest.skip("this server trusts everybody")
    assert (said.code, said.error["code"]) == (1, "credentials-refused")
    assert "hunter2" not in said.err


async def test_a_refused_setting_is_named_without_its_value(strata: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_HTTP__PORT", "seventy")
    said = await strata("tenant", "list", "--json")
    assert (said.code, said.error["code"]) == (1, "settings-refused")
    assert "STRATA_HTTP__PORT" in said.error["detail"]
    monkeypatch.delenv("STRATA_HTTP__PORT")
    monkeypatch.setenv("STRATA_ENVIRONMENT", "production")
    assert "STRATA_KEYS__PROVIDER=vault" in (await strata("tenant", "list")).err


async def test_without_servers_it_says_how_to_get_them(
    strata: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STRATA_DATABASE_URL")
    monkeypatch.delenv("STRATA_REDIS_URL")
    said = await strata("tenant", "list", "--json", "--data-dir", tmp_path)
    assert (said.code, said.error["code"]) == (1, "not-running")
    assert "strata up" in said.error["detail"]
    assert list(tmp_path.iterdir()) == []


async def test_another_key_is_named(strata: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRATA_DATA_DIR", str(tmp_path))
    said = await strata("server", "list", "--json")
    assert (said.code, said.error["code"]) == (1, "seal-broken")
    key = tmp_path / "keys" / "local.key"
    key.chmod(stat.S_IRUSR | stat.S_IROTH)
    assert "chmod 600" in (await strata("server", "list")).err


async def test_people_get_tables(strata: Command, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    said = await strata("tenant", "list", "--search", context.slug)
    header, row = said.out.splitlines()
    assert header.split()[:2] == ["SLUG", "NAME"]
    assert context.slug in row
    assert context.name in (await strata("tenant", "show", context.slug)).out
    for words in (["server", "list"], ["cell", "list"], ["db", "status"], ["db", "upgrade"]):
        assert (await strata(*words)).code == 0
    assert "tenant" in (await strata()).out
    assert (await strata("--version")).out.strip() == "0.1.0"
