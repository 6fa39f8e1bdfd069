"""strata migrate wave, strata migrate waves …"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from strata.cli.options import AsJson, DataDir, duration_s
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.migrator.waves.desk import MAX_FAILURES, PARALLEL, Candidate, Pace, WaveOrder, WaveWish
from strata.migrator.waves.store import Member, Outcome, Wave
from strata.migrator.waves.window import Window
from strata.platform.errors import InvalidInputError
from strata.runtime import Runtime
from strata.tenancy.model import Tier

app = typer.Typer(
    help="Waves of moves: how they go, and pausing, resuming, retrying, cancelling them.",
    rich_markup_mode=None,
    invoke_without_command=True,
)

_LOOK_EVERY_S = 0.5

Parallel = Annotated[int, typer.Option("--parallel", min=1, max=64, help="Moves under way at once.")]
MaxFailures = Annotated[
    int,
    typer.Option(
        "--max-failures", min=1, max=1_000_000, help="At so many, nothing more begins until somebody resumes the wave."
    ),
]
Hours = Annotated[
    str | None, typer.Option("--window", metavar="01:00-05:00", help="Moves begin within these hours alone.")
]
Zone = Annotated[
    str, typer.Option("--time-zone", metavar="ZONE", help="Of the window, such as Europe/Berlin or Asia/Bangkok.")
]
WaveId = Annotated[str, typer.Argument(metavar="[ID]", help="A wave's id or its beginning; left out, the newest.")]
NamedWave = Annotated[str, typer.Argument(metavar="ID", help="A wave's id or its beginning.")]


def pace(parallel: int, max_failures: int, hours: str | None, zone: str, retention: str) -> Pace:
    window = None if hours is None else Window.read(hours, zone)
    return Pace(parallel, max_failures, window, duration_s(retention))


def wave(
    to: Annotated[Tier, typer.Option("--to", help="The isolation the tenants get.")],
    plan: Annotated[str | None, typer.Option("--plan", help="All tenants on this plan.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Tenants by slug, one a line, in this order; «-»: standard input.")
    ] = None,
    from_cell: Annotated[str | None, typer.Option("--from-cell", help="All tenants in this cell.")] = None,
    cell: Annotated[str | None, typer.Option("--cell", help="The shared cell they go to (default: the best).")] = None,
    server: Annotated[
        str | None, typer.Option("--server", help="Where dedicated databases are made (default: the best).")
    ] = None,
    parallel: Parallel = PARALLEL,
    max_failures: MaxFailures = MAX_FAILURES,
    window: Hours = None,
    time_zone: Zone = "UTC",
    retention: Annotated[
        str, typer.Option("--retention", metavar="0s", help="How long each move can be rolled back.")
    ] = "0s",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say who would be moved, and start nothing.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Move many tenants, a few at a time; workers run it. Exactly one of --plan, --file and --from-cell."""
    order = WaveOrder(
        to,
        tenants=() if file is None else _slugs(file),
        plan=plan,
        from_cell=from_cell,
        cell=cell,
        server=server,
        pace=pace(parallel, max_failures, window, time_zone, retention),
    )

    async def look(runtime: Runtime) -> list[Candidate]:
        return await runtime.waves.gather(order)

    async def act(runtime: Runtime) -> Wave:
        return await runtime.waves.start(order, actor())

    if not dry_run:
        print_started(perform(act, data_dir), as_json=as_json)
        return
    candidates = perform(look, data_dir)
    if as_json:
        print_json({"tenants": candidates})
        return
    print_table(
        ("TENANT", "FROM", "TO"),
        (
            (each.slug, each.from_cell, f"{each.to_tier} in {_place(each.to_cell, each.to_server)}")
            for each in candidates
        ),
        empty="No tenant would be moved.",
    )


def print_started(started: Wave, *, as_json: bool) -> None:
    if as_json:
        print_json(started)
        return
    print_line(f"Started wave {started.id}: {started}, {started.tenants} tenants, {started.parallel} at a time.")
    if started.window is not None:
        print_line(f"Moves begin within {started.window} alone.")
    print_line(f"To follow it: strata migrate waves watch {str(started.id)[:13]}")


@app.callback()
def waves(context: typer.Context, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        list_waves(data_dir=data_dir, as_json=as_json)


@app.command("list")
def list_waves(
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Only those that have not ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Waves, newest first."""

    async def act(runtime: Runtime) -> list[Wave]:
        return await runtime.waves.waves.newest(unfinished=unfinished, limit=limit)

    found = perform(act, data_dir)
    if as_json:
        print_json({"waves": found})
        return
    print_table(
        ("ID", "WAVE", "STATE", "ARRIVED", "FAILED", "MOVING", "WAITING", "STARTED"),
        (
            (
                each.id,
                each,
                each.state,
                f"{each.counts[Outcome.ARRIVED]} of {each.tenants}",
                each.counts[Outcome.FAILED],
                each.counts[Outcome.MOVING],
                each.counts[Outcome.WAITING],
                f"{each.created_at:%Y-%m-%d %H:%M:%S}",
            )
            for each in found
        ),
        empty="No waves: strata migrate wave starts one.",
    )


@app.command("show")
def show(
    name: WaveId = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only the tenants that did not arrive.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """How a wave went with each tenant, and why one did not arrive."""

    async def act(runtime: Runtime) -> tuple[Wave, list[Member]]:
        found = await _named_or_latest(runtime, name)
        return found, await runtime.waves.waves.members(found.id)

    shown, members = perform(act, data_dir)
    if failed:
        members = [each for each in members if each.outcome is Outcome.FAILED]
    if as_json:
        print_json({**msgspec.to_builtins(shown), "tenants": members})
        return
    print_line(_in_words(shown))
    print_table(
        ("TENANT", "HOW IT WENT", "FROM", "TO", "WRITE BLOCK", "MOVE", "WHY"),
        (
            (
                each.tenant,
                each.outcome,
                each.from_cell,
                f"{each.to_tier} in {_place(each.to_cell, each.to_server)}",
                None if each.write_block_ms is None else f"{each.write_block_ms:.0f} ms",
                each.move,
                " ".join(filter(None, (each.reason, each.next and f"Next: {each.next}"))),
            )
            for each in members
        ),
        empty="None.",
    )


@app.command("watch")
def watch(name: WaveId = "", data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Follow a wave until it rests: a line for each change, JSON with --json or in a pipe. Exit code 1 when tenants failed."""

    async def act(runtime: Runtime) -> Wave:
        found = await _named_or_latest(runtime, name)
        last = ""
        while True:
            line = _in_words(found)
            if line != last:
                last = line
                if as_json or not sys.stdout.isatty():
                    print_json(found)
                else:
                    print_line(line)
            if found.rests:
                return found
            await asyncio.sleep(_LOOK_EVERY_S)
            found = await runtime.waves.waves.get(found.id)

    if perform(act, data_dir).counts[Outcome.FAILED]:
        raise typer.Exit(1)


@app.command("pause")
def pause(name: NamedWave, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Begin nothing more for now; what is under way goes on."""
    _ask(name, WaveWish.PAUSE, data_dir, as_json=as_json)


@app.command("resume")
def resume(name: NamedWave, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Go on, also after too many have failed: those count no more."""
    _ask(name, WaveWish.RESUME, data_dir, as_json=as_json)


@app.command("retry")
def retry(name: NamedWave, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Try those that failed again, and go on."""
    _ask(name, WaveWish.RETRY, data_dir, as_json=as_json)


@app.command("cancel")
def cancel(
    name: NamedWave,
    under_way: Annotated[
        bool, typer.Option("--under-way", help="Give up also the moves that have begun and are not cut over yet.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """End a wave: nothing more begins; what is under way goes on unless told otherwise."""
    _ask(name, WaveWish.CANCEL_ALL if under_way else WaveWish.CANCEL, data_dir, as_json=as_json)


def _ask(name: str, wish: WaveWish, data_dir: Path | None, *, as_json: bool) -> None:
    async def act(runtime: Runtime) -> Wave:
        found = await runtime.waves.waves.find(name)
        return await runtime.waves.ask(found.id, wish, actor())

    asked = perform(act, data_dir)
    if as_json:
        print_json(asked)
    else:
        print_line(_in_words(asked))


async def _named_or_latest(runtime: Runtime, name: str) -> Wave:
    """To look at: what changes a wave needs its name."""
    waves = runtime.waves.waves
    return await waves.find(name) if name else await waves.latest()


def _in_words(shown: Wave) -> str:
    counted = ", ".join(f"{count} {outcome}" for outcome, count in shown.counts.items() if count)
    waits = f"; {shown.waiting}" if shown.waiting else ""
    return f"{shown.id} ({shown}) is {shown.state}: {counted}{waits}"


def _place(cell: str | None, server: str | None) -> str:
    return cell or server or "wherever has room"


def _slugs(file: Path) -> tuple[str, ...]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{file} cannot be read ({error}): name a text file with one slug a line."
        raise InvalidInputError(message) from None
    slugs = tuple(line.partition("#")[0].strip() for line in text.splitlines())
    if not any(slugs):
        message = f"{file} names no tenant: write one slug a line."
        raise InvalidInputError(message)
    return tuple(filter(None, slugs))
