"""strata token …"""

from __future__ import annotations

from typing import Annotated

import typer

from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line
from strata.cli.surroundings import actor, perform, tenant_url
from strata.identity.roles import Role
from strata.identity.tokens import staff_token, tenant_token
from strata.runtime import Runtime

app = typer.Typer(help="Access tokens.", rich_markup_mode=None)


@app.callback()
def _token() -> None:
    """Keeps `issue` a command of its own: Typer folds a single one into its group."""


@app.command("issue")
def issue(
    slug: Annotated[str | None, typer.Argument(metavar="SLUG", help="The tenant; none with --staff.")] = None,
    role: Annotated[Role | None, typer.Option(help="What the holder may do in the tenant.")] = None,
    staff: Annotated[bool, typer.Option("--staff", help="For the console: a token of the platform's staff.")] = False,
    subject: Annotated[str | None, typer.Option(help="Who holds it, for the audit (default: you).")] = None,
    lifetime_hours: Annotated[
        int | None, typer.Option(min=1, max=24 * 365, help="Default: STRATA_TOKENS__LIFETIME_S.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Sign a token and print it, alone on its line."""
    holder = subject or actor()
    lifetime_s = None if lifetime_hours is None else lifetime_hours * 3600
    if staff == (slug is not None) or (staff and role is not None) or (not staff and role is None):
        message = "Name a tenant and --role, or --staff alone"
        raise typer.BadParameter(message)

    async def act(runtime: Runtime) -> dict[str, object]:
        if slug is None or role is None:
            token = staff_token(runtime.tokens, subject=holder, lifetime_s=lifetime_s)
            label = runtime.settings.http.console_label
            return {"token": token, "role": Role.STAFF, "url": tenant_url(runtime.settings, label)}
        tenant = await runtime.directory.get(slug)
        token = tenant_token(runtime.tokens, tenant.id, role, subject=holder, lifetime_s=lifetime_s)
        return {
            "token": token,
            "role": role,
            "tenant": tenant.id,
            "slug": slug,
            "url": tenant_url(runtime.settings, slug),
        }

    issued = perform(act, data_dir)
    if as_json:
        print_json(issued)
    else:
        print_line(str(issued["token"]))
