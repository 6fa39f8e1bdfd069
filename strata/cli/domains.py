"""strata domain …"""

from __future__ import annotations

from typing import Annotated

import typer

from strata.cli.options import AsJson, DataDir, Slug
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.platform.errors import InvalidInputError
from strata.routing.host import HostKind, Hosts, InvalidHostError
from strata.runtime import Runtime
from strata.tenancy.catalog.domains import Domain
from strata.tenancy.entitlements.asking import Feature, need

app = typer.Typer(help="Host names of tenants' own.", rich_markup_mode=None)

Hostname = Annotated[str, typer.Argument(metavar="HOSTNAME", help="As browsers send it, without a port.")]


@app.command("add")
def add(slug: Slug, hostname: Hostname, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Route a host name to a tenant. You vouch for who owns it, and for its certificate."""

    async def act(runtime: Runtime) -> Domain:
        try:
            host = Hosts(runtime.settings.http).resolve([hostname.encode(errors="surrogateescape")])
        except InvalidHostError as error:
            detail = f"«{hostname}» cannot be a tenant's domain: {error.why}."
            raise InvalidInputError(detail) from None
        if host.kind is not HostKind.CUSTOM:
            detail = (
                f"«{hostname}» is not a domain of a tenant's own: it must have a dot and lie outside our base domain."
            )
            raise InvalidInputError(detail)
        need(await runtime.contexts.get_by_slug(slug), Feature.CUSTOM_DOMAIN)
        return await runtime.domains.add(slug, host.name, actor())

    domain = perform(act, data_dir)
    if as_json:
        print_json(domain)
    else:
        print_line(f"{domain.hostname} is routed to {slug}.")


@app.command("list")
def list_domains(slug: Slug, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """A tenant's domains by name."""

    async def act(runtime: Runtime) -> list[Domain]:
        return await runtime.domains.list(slug)

    domains = perform(act, data_dir)
    if as_json:
        print_json({"domains": domains})
        return
    print_table(
        ("HOSTNAME", "VERIFIED", "CERTIFICATE"),
        ((d.hostname, d.verified_at, d.certificate_status) for d in domains),
        empty=f"No domains: strata domain add {slug} HOSTNAME routes one.",
    )


@app.command("remove")
def remove(slug: Slug, hostname: Hostname, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Stop routing a host name to a tenant."""

    async def act(runtime: Runtime) -> None:
        await runtime.domains.remove(slug, hostname.lower().rstrip("."), actor())

    perform(act, data_dir)
    if as_json:
        print_json({"removed": hostname})
    else:
        print_line(f"{hostname} is no longer routed to {slug}.")
