"""strata tenant …"""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from strata.cli import entitlements
from strata.cli.agreements import set_document
from strata.cli.attesting import attest
from strata.cli.options import AsJson, DataDir, Slug
from strata.cli.output import print_facts, print_json, print_line, print_table
from strata.cli.surroundings import actor, perform, tenant_url
from strata.cli.sweeping import sweep_once
from strata.platform.errors import BadRequestError
from strata.runtime import Runtime
from strata.tenancy.catalog.tenants import TenantSummary
from strata.tenancy.model import TenantStatus, Tier
from strata.tenancy.provisioning.tenants import Created, NewTenant, Removal
from strata.tenancy.settings.conditions import setting_condition

app = typer.Typer(help="Create, find, hold and delete tenants.", rich_markup_mode=None)


def _something(reason: str) -> str:
    if not reason.strip():
        message = "the tenant's users are told why: the reason cannot be empty"
        raise typer.BadParameter(message)
    return reason.strip()


Reason = Annotated[str, typer.Option(callback=_something, help="Why; the tenant's users are told.")]


class DeletionUnconfirmedError(BadRequestError):
    code = "deletion-unconfirmed"
    title = "Deletion was not confirmed"

    def __init__(self, slug: str) -> None:
        super().__init__(f"Deleting «{slug}» cannot be undone: nothing was deleted; say so with --yes.")


@app.command("create")
def create(
    slug: Slug,
    tier: Annotated[Tier, typer.Option(help="The isolation the tenant gets.")] = Tier.SHARED,
    name: Annotated[str | None, typer.Option(help="The organisation's name (default: the slug).")] = None,
    plan: Annotated[str | None, typer.Option(help="Default: the lowest paid plan sold with the tier.")] = None,
    region: Annotated[str | None, typer.Option(help="Pin the tenant to cells of this region.")] = None,
    cell: Annotated[str | None, typer.Option(help="A shared cell by name (default: the emptiest).")] = None,
    parent: Annotated[str | None, typer.Option(help="The slug of the partner the tenant belongs to.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant. Run again with the same slug and tier, it changes nothing and says so."""
    new = NewTenant(slug=slug, name=name or slug, tier=tier, plan=plan, region=region, cell=cell, parent=parent)

    async def act(runtime: Runtime) -> tuple[Created, TenantSummary, str]:
        await sweep_once(runtime.provisioning)
        created = await runtime.provisioning.create(new, actor())
        return created, await runtime.directory.get(slug), tenant_url(runtime.settings, slug)

    created, tenant, url = perform(act, data_dir)
    if as_json:
        print_json({"created": created.created, **msgspec.to_builtins(tenant), "url": url})
        return
    print_line(f"{'Created' if created.created else 'There already'}: {slug}, {url}/")
    print_line(f"A token to sign in with: strata token issue {slug} --role administrator")


@app.command("list")
def list_tenants(
    search: Annotated[str | None, typer.Option(help="Only slugs and names that contain this.")] = None,
    status: Annotated[
        TenantStatus | None, typer.Option(help="Only these; closed ones show only when asked for.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only with this setting: settings.regional.time_zone=Europe/Berlin; several: all of them."),
    ] = None,
    after: Annotated[str | None, typer.Option(help="Go on after this slug.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Tenants by slug."""

    async def act(runtime: Runtime) -> list[TenantSummary]:
        conditions = [setting_condition(runtime.settings_book.model, each) for each in where or ()]
        return await runtime.directory.find(search=search, status=status, after=after, limit=limit, where=conditions)

    found = perform(act, data_dir)
    if as_json:
        print_json({"tenants": found, "next_after": found[-1].slug if len(found) == limit else None})
        return
    print_table(
        ("SLUG", "NAME", "STATUS", "PLAN", "TIER", "CELL", "REGION"),
        ((t.slug, t.name, t.status, t.plan, t.tier, t.cell, t.region) for t in found),
        empty="No tenants: strata tenant create makes one.",
    )
    if len(found) == limit:
        print_line(f"There may be more: --after {found[-1].slug}")


@app.command("show")
def show(slug: Slug, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """All that the catalog says of a tenant, with its history."""

    async def act(runtime: Runtime) -> tuple[dict[str, object], list[dict[str, object]]]:
        tenant = await runtime.directory.get(slug)
        context = await runtime.contexts.fresh(tenant.id)
        history = [
            {"at": row.at, "actor": row.actor, "action": row.action, "detail": row.detail}
            for row in await runtime.provisioning.history(tenant.id)
        ]
        shown = {
            **msgspec.to_builtins(tenant),
            "url": tenant_url(runtime.settings, slug),
            "limits": msgspec.structs.asdict(context.limits),
            "features": sorted(context.features.names),
        }
        return shown, history

    tenant, history = perform(act, data_dir)
    if as_json:
        print_json({**tenant, "history": history})
        return
    print_facts({name: _shown(value) for name, value in tenant.items()})
    print_line("")
    print_table(
        ("AT", "WHO", "WHAT", "DETAIL"),
        (
            (f"{entry['at']:%Y-%m-%d %H:%M:%S}", entry["actor"], entry["action"], _shown(entry["detail"]))
            for entry in history
        ),
        empty="No history.",
    )


@app.command("suspend")
def suspend(slug: Slug, reason: Reason, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Turn a tenant's users away (403, with the reason) until it is resumed."""
    _set_status(slug, TenantStatus.SUSPENDED, reason, data_dir, as_json=as_json)


@app.command("read-only")
def read_only(slug: Slug, reason: Reason, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Let a tenant read and refuse what would change anything, until it is resumed."""
    _set_status(slug, TenantStatus.READ_ONLY, reason, data_dir, as_json=as_json)


@app.command("resume")
def resume(slug: Slug, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Back to normal from suspended or read-only."""
    _set_status(slug, TenantStatus.ACTIVE, None, data_dir, as_json=as_json)


@app.command("delete")
def delete(
    slug: Slug,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where nobody can answer.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Remove a tenant's data and all that was made for it, then look whether anything is left, and print the proof."""
    if not yes:
        _confirm_deletion(slug, as_json=as_json)

    async def act(runtime: Runtime) -> Removal:
        return await runtime.provisioning.delete(slug, actor())

    removal = perform(act, data_dir)
    if as_json:
        print_json(removal)
        return
    print_line(
        f"Deleted {removal.slug} ({removal.id}) from {removal.cell} at {removal.removed_at:%Y-%m-%d %H:%M:%S %Z}."
    )
    print_table(("LOOKED FOR", "FOUND"), removal.remains.items(), empty="")


def _confirm_deletion(slug: str, *, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise DeletionUnconfirmedError(slug)
    if typer.prompt(f"This removes all data of «{slug}» for good. Type the slug to go on", err=True) != slug:
        raise DeletionUnconfirmedError(slug)


def _set_status(slug: str, status: TenantStatus, reason: str | None, data_dir: DataDir, *, as_json: bool) -> None:
    async def act(runtime: Runtime) -> TenantSummary:
        return await runtime.directory.set_status(slug, status, reason, actor())

    tenant = perform(act, data_dir)
    if as_json:
        print_json(tenant)
    else:
        said = f" ({tenant.status_reason})" if tenant.status_reason else ""
        print_line(f"{slug} is {tenant.status.value}{said}.")


def _shown(value: object) -> object:
    match value:
        case dict():
            return ", ".join(f"{key}: {each}" for key, each in value.items())
        case list():
            return ", ".join(map(str, value))
        case _:
            return value


app.command("set")(set_document)
app.command("attest")(attest)
app.command("plan")(entitlements.plan)
app.command("entitlements")(entitlements.entitlements)
app.command("grant")(entitlements.grant)
app.command("revoke")(entitlements.revoke)
