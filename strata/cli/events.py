"""strata events …"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from strata.cli.options import AsJson, DataDir, Slug
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import perform
from strata.events import consumers
from strata.inventory.aggregates.consumer import rebuild
from strata.runtime import Runtime
from strata.tenancy.events import dead_letters
from strata.tenancy.events.models import DeadLetter

app = typer.Typer(
    help="Events that consumers could not deal with, and what is kept from events.", rich_markup_mode=None
)

Letter = Annotated[UUID, typer.Argument(metavar="LETTER", help="The letter's id, as strata events dead shows it.")]


@app.command("dead")
def dead(slug: Slug, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """A tenant's dead letters: events that a consumer failed over, again and again."""

    async def act(runtime: Runtime) -> list[DeadLetter]:
        return await dead_letters.dead_letters(runtime.tenants, await runtime.contexts.get_by_slug(slug))

    letters = perform(act, data_dir)
    if as_json:
        print_json({"dead_letters": [_document(letter) for letter in letters]})
        return
    print_table(
        ("LETTER", "CONSUMER", "EVENT", "DIED", "TRIES", "ERROR"),
        (
            (each.id, each.consumer, f"{each.type} v{each.version}", each.died_at, each.attempts, each.error)
            for each in letters
        ),
        empty="No dead letters.",
    )


@app.command("retry")
def retry(slug: Slug, letter: Letter, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Hand a dead letter to its consumer once more. It stays one if that fails again."""

    async def act(runtime: Runtime) -> None:
        context = await runtime.contexts.get_by_slug(slug)
        await dead_letters.retry(runtime.tenants, context, consumers(runtime), letter)

    perform(act, data_dir)
    _said({"retried": str(letter)}, "Delivered.", as_json=as_json)


@app.command("discard")
def discard(slug: Slug, letter: Letter, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Give a dead letter up: its consumer never hears of the event."""

    async def act(runtime: Runtime) -> None:
        await dead_letters.discard(runtime.tenants, await runtime.contexts.get_by_slug(slug), letter)

    perform(act, data_dir)
    _said({"discarded": str(letter)}, "Discarded.", as_json=as_json)


@app.command("rebuild")
def rebuild_aggregates(slug: Slug, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Make a tenant's stock by warehouse from its ledger again, beside whatever goes on."""

    async def act(runtime: Runtime) -> int:
        return await rebuild(runtime.tenants, await runtime.contexts.get_by_slug(slug))

    wrong = perform(act, data_dir)
    _said({"changed": wrong}, f"{wrong} rows were not as the ledger says, and are now.", as_json=as_json)


def _document(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": str(letter.id),
        "consumer": letter.consumer,
        "event_id": str(letter.event_id),
        "type": letter.type,
        "version": letter.version,
        "occurred_at": letter.occurred_at,
        "died_at": letter.died_at,
        "attempts": letter.attempts,
        "error": letter.error,
        "payload": letter.payload,
    }


def _said(document: dict[str, object], sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print_line(sentence)
