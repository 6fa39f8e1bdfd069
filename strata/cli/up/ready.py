"""What people and programs need once it runs: addresses, and a token for each."""

from __future__ import annotations

from typing import Literal

import msgspec
from rich.panel import Panel
from rich.text import Text

from strata.cli.output import console, print_json
from strata.cli.surroundings import tenant_url
from strata.identity.roles import Role
from strata.identity.tokens import staff_token, tenant_token
from strata.platform.database.addresses import libpq
from strata.runtime import Runtime
from strata.tenancy.catalog.tenants import TenantSummary
from strata.tenancy.model import Tier

SUBJECT = "demo"


class ReadyTenant(msgspec.Struct, frozen=True):
    slug: str
    tier: Tier | None
    url: str
    token: str


class ReadyConsole(msgspec.Struct, frozen=True):
    url: str
    token: str


class ReadyPostgres(msgspec.Struct, frozen=True):
    dsn: str


class ReadyRedis(msgspec.Struct, frozen=True):
    url: str


class Ready(msgspec.Struct, frozen=True):
    tenants: list[ReadyTenant]
    console: ReadyConsole
    postgres: ReadyPostgres
    redis: ReadyRedis
    event: Literal["ready"] = "ready"


def ready_message(runtime: Runtime, tenants: list[TenantSummary]) -> Ready:
    settings = runtime.settings
    return Ready(
        tenants=[
            ReadyTenant(
                tenant.slug,
                tenant.tier,
                tenant_url(settings, tenant.slug),
                tenant_token(runtime.tokens, tenant.id, Role.ADMINISTRATOR, subject=SUBJECT),
            )
            for tenant in tenants
        ],
        console=ReadyConsole(
            tenant_url(settings, settings.http.console_label), staff_token(runtime.tokens, subject=SUBJECT)
        ),
        postgres=ReadyPostgres(libpq(runtime.catalog_url)),
        redis=ReadyRedis(settings.redis_url.get_secret_value() if settings.redis_url else ""),
    )


def show(ready: Ready, *, as_json: bool) -> None:
    if as_json:
        print_json({"event": ready.event, **msgspec.structs.asdict(ready)})
        return
    out = console()
    out.print(Panel("Strata is running. Ctrl-C stops it.", expand=False))
    for tenant in ready.tenants:
        _entry(f"{tenant.slug} ({tenant.tier})", tenant.url, tenant.token)
    _entry("console (staff)", ready.console.url, ready.console.token)


def _entry(title: str, url: str, token: str) -> None:
    """The token on a line of its own and never wrapped: it is there to be copied."""
    out = console()
    out.print(Text.assemble((title, "bold"), "  ", (f"{url}/", "underline")))
    out.print(Text(token, style="dim"), soft_wrap=True)
    out.print()
