"""strata settings …"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from strata.cli.agreements import read_document
from strata.cli.options import AsJson, DataDir, Slug
from strata.cli.output import print_facts, print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.inventory.settings import SECTIONS as INVENTORY_SECTIONS
from strata.platform.paging import Page, Paging
from strata.runtime import Runtime
from strata.tenancy.settings.book import KeptSettings, SettingsChange
from strata.tenancy.settings.merging import leaves
from strata.tenancy.settings.model import SettingsModel
from strata.tenancy.settings.sections import SECTIONS

app = typer.Typer(help="What tenants have chosen for themselves.", rich_markup_mode=None)

Number = Annotated[int, typer.Argument(metavar="NUMBER", help="The change, as strata settings history shows it.")]


@app.command("show")
def show(slug: Slug, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """A tenant's settings, with the defaults for what it has not set."""

    async def act(runtime: Runtime) -> KeptSettings:
        return await runtime.settings_book.of((await runtime.directory.get(slug)).id)

    _show(perform(act, data_dir), as_json=as_json)


@app.command("set")
def set_settings(
    slug: Slug,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A JSON merge patch (RFC 7396); - for standard input.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change some of a tenant's settings, staff's too; null brings a default back."""
    patch = read_document(file)

    async def act(runtime: Runtime) -> KeptSettings:
        tenant = await runtime.directory.get(slug)
        return await runtime.settings_book.patch(tenant.id, patch, if_match="*", actor=actor(), staff=True)

    _show(perform(act, data_dir), as_json=as_json)


@app.command("history")
def history(
    slug: Slug,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where another list ended.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Who changed what, the newest first."""

    async def act(runtime: Runtime) -> Page[SettingsChange]:
        tenant = await runtime.directory.get(slug)
        return await runtime.settings_book.history(tenant.id, Paging(limit, cursor))

    page = perform(act, data_dir)
    if as_json:
        print_json(page)
        return
    print_table(
        ("NO", "AT", "WHO", "WHAT", "UNDOES"),
        ((e.number, f"{e.at:%Y-%m-%d %H:%M:%S}", e.actor, _text(e.patch), e.undoes) for e in page.items),
        empty="Nothing was ever changed.",
    )


@app.command("undo")
def undo(slug: Slug, number: Number, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Take back what one change did; what others have changed since stays."""

    async def act(runtime: Runtime) -> KeptSettings:
        tenant = await runtime.directory.get(slug)
        return await runtime.settings_book.undo(tenant.id, number, actor=actor(), staff=True)

    _show(perform(act, data_dir), as_json=as_json)


@app.command("schema")
def schema(as_json: AsJson = False) -> None:
    """The settings there are: a JSON Schema, or a line for each."""
    model = SettingsModel((*SECTIONS, *INVENTORY_SECTIONS))
    if as_json:
        print_json(model.schema)
        return
    for path, value in leaves(model.effective({})):
        print_line(f"{'.'.join(path)} = {_text(value)}")


def _show(kept: KeptSettings, *, as_json: bool) -> None:
    if as_json:
        print_json(kept)
        return
    print_facts({".".join(path): _text(value) for path, value in leaves(kept.settings)})
    print_line(f"Version {kept.version}.")


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
