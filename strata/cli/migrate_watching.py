"""Following a move: a live display on a terminal, one JSON line for each change in a pipe."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import msgspec
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from strata.cli.output import console, print_json, print_line
from strata.migrator.moves import MoveEvent
from strata.migrator.phases import FINISHED, Phase
from strata.migrator.status import MoveStatus, status_of

if TYPE_CHECKING:
    from strata.migrator.moves import Move
    from strata.runtime import Runtime

_LOOK_EVERY_S = 0.25
_EVENTS_SHOWN = 8


async def watch_move(runtime: Runtime, name: str, *, as_json: bool) -> None:
    """Until the move is finished, failed, or kept for a rollback."""
    at = runtime.desk
    move = await at.find(name)
    if as_json or not sys.stdout.isatty():
        await _print_changes(runtime, move)
        return
    with Live(console=console(), refresh_per_second=8) as live:
        events: list[MoveEvent] = []
        while True:
            move = await at.moves.get(move.id)
            events += await at.moves.events(move.id, after=events[-1].id if events else 0)
            live.update(_display(status_of(move), events))
            if _rests(move):
                break
            await asyncio.sleep(_LOOK_EVERY_S)
    print_line(_last_word(move))


async def _print_changes(runtime: Runtime, move: Move) -> None:
    at = runtime.desk
    told, last = 0, b""
    while True:
        move = await at.moves.get(move.id)
        for event in await at.moves.events(move.id, after=told):
            told = event.id
            print_json({"event": "move", **msgspec.to_builtins(event)})
        status = status_of(move)
        if (line := msgspec.json.encode(status)) != last:
            last = line
            print_json({"event": "status", **msgspec.to_builtins(status)})
        if _rests(move):
            return
        await asyncio.sleep(_LOOK_EVERY_S)


def _rests(move: Move) -> bool:
    kept = move.phase is Phase.RETAINING and f"arrived at {move.epoch}" in move.progress
    return move.finished or ((kept or move.phase is Phase.FAILED) and move.wish is None)


def _display(status: MoveStatus, events: list[MoveEvent]) -> Group:
    bars = Progress(TextColumn("{task.description:<24}"), BarColumn(40), MofNCompleteColumn())
    copied = any(event.what == "copied" for event in events)
    for name, table in status.tables.items():
        # What a table has is an estimate before it is copied; the empty ones say nothing afterwards.
        if table["rows"] or not copied:
            total = table["rows"] if copied else max(table["of"], table["rows"], 1)
            bars.add_task(name, completed=table["rows"], total=total)
    facts = [f"phase {status.phase.value}"]
    if status.rows_per_s:
        facts.append(f"{status.rows:,} rows, {status.bytes:,} bytes, {status.rows_per_s:,} rows/s")
    if status.eta_s and status.phase is Phase.COPYING:
        facts.append(f"{status.eta_s:.0f} s to go")
    if status.lag_bytes is not None and status.phase not in FINISHED:
        facts.append(f"lag {status.lag_bytes:,} bytes")
    if status.write_block_ms is not None:
        facts.append(f"write block {status.write_block_ms:.0f} ms")
    if status.waiting:
        facts.append(f"waits: {status.waiting}")
    if status.throttled:
        facts.append(f"held back: {status.throttled}")
    told = [Text(f"{event.at:%H:%M:%S}  {event.what:<17} {_short(event)}", style="dim") for event in events]
    route = f"{status.tenant}: {status.source} → {status.target}"
    return Group(Text(route, style="bold"), Text(" · ".join(facts)), bars, *told[-_EVENTS_SHOWN:])


def _short(event: MoveEvent) -> str:
    simple = {name: value for name, value in event.detail.items() if not isinstance(value, (dict, list))}
    return ", ".join(f"{name} {value}" for name, value in simple.items())[:100]


def _last_word(move: Move) -> str:
    if move.failure is not None:
        return f"Failed in {move.failure.phase}: {move.failure.detail} {move.failure.tenant} Next: {move.failure.next}"
    if move.phase is Phase.RETAINING:
        return f"{move.slug} lives in {move.target}. Back: strata migrate rollback {move.slug}, until {move.retained_until:%Y-%m-%d %H:%M}."
    return f"{move.slug}: {move.phase.value}."
