"""strata audit …"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Annotated

import typer

from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import perform
from strata.platform.paging import Page, Paging
from strata.runtime import Runtime
from strata.tenancy.audit.chain import ChainBrokenError, ChainedEntry, Verification
from strata.tenancy.audit.entries import EntryFilter, EntryOut
from strata.tenancy.audit.export import ExportFormat, begun, exported
from strata.tenancy.audit.reading import every_entry, head, list_entries, verify
from strata.tenancy.catalog import audit_chain

app = typer.Typer(help="Who did what: a tenant's audit, and the staff's.", rich_markup_mode=None)

Whose = Annotated[
    str | None,
    typer.Argument(metavar="[SLUG]", help="The tenant whose own audit is meant; left out: the staff's and platform's."),
]


@app.command("list")
def list_audit(
    slug: Whose = None,
    actor: Annotated[str | None, typer.Option(help="Only what this one did.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this: product.change.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only with this: a SKU, a code.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where another list ended.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """The newest entries first."""
    wanted, paging = EntryFilter(actor, action, subject), Paging(limit, cursor)

    async def act(runtime: Runtime) -> Page[EntryOut]:
        if slug is None:
            return await audit_chain.list_entries(runtime.catalog_engine, paging, wanted)
        async with runtime.tenants.reading(await runtime.contexts.get_by_slug(slug)) as session:
            return await list_entries(session, paging, wanted)

    page = perform(act, data_dir)
    if as_json:
        print_json(page)
        return
    print_table(
        ("NO", "AT", "WHO", "WHAT", "WITH", "FROM", "HOW"),
        (
            (e.sequence, f"{e.at:%Y-%m-%d %H:%M:%S}", e.actor, e.action, e.subject, e.source, e.authentication)
            for e in page.items
        ),
        empty="Nothing yet.",
    )
    if page.next_cursor:
        print_line(f"There is more: --cursor {page.next_cursor}")


@app.command("verify")
def verify_audit(
    slug: Whose = None,
    no_anchor: Annotated[
        bool, typer.Option("--no-anchor", help="Do not remember in the catalog how a sound chain stands.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Go through a whole audit and say which entry was changed, removed or put in; exit code 1 if any was."""

    async def act(runtime: Runtime) -> Verification:
        if slug is None:
            return await audit_chain.verify(runtime.catalog_engine)
        context = await runtime.contexts.get_by_slug(slug)
        found = await verify(runtime.tenants, context, await audit_chain.anchors_of(runtime.catalog_engine, context.id))
        if found.sound and not no_anchor:
            async with runtime.tenants.reading(context) as session:
                newest = await head(session)
            if newest is not None:
                await audit_chain.anchor(runtime.catalog_engine, context.id, newest)
        return found

    found = perform(act, data_dir)
    if not found.sound:
        raise ChainBrokenError(f"tenant «{slug}»" if slug else "staff and platform", found)
    if as_json:
        print_json(found)
    else:
        print_line(
            f"{found.entries} entries, each as it was written; {found.anchors} anchors agree. Head: {found.head}"
        )


@app.command("export")
def export_audit(
    slug: Whose = None,
    form: Annotated[ExportFormat, typer.Option("--format", help="JSON lines can be checked by themselves.")] = (
        ExportFormat.JSON_LINES
    ),
    data_dir: DataDir = None,
) -> None:
    """A whole audit to standard output, the oldest entry first."""

    async def act(runtime: Runtime) -> None:
        async for line in exported(await begun(await _entries(runtime, slug)), form):
            sys.stdout.write(line)

    perform(act, data_dir)
    sys.stdout.flush()


async def _entries(runtime: Runtime, slug: str | None) -> AsyncIterator[ChainedEntry]:
    if slug is None:
        return audit_chain.every_entry(runtime.catalog_engine)
    return every_entry(runtime.tenants, await runtime.contexts.get_by_slug(slug))
