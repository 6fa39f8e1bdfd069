"""strata migrate …"""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from strata.cli import waves
from strata.cli.migrate_watching import watch_move
from strata.cli.options import AsJson, DataDir, Slug, duration_s
from strata.cli.output import print_facts, print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.migrator.desk import Order, Plan
from strata.migrator.losses import Loss
from strata.migrator.moves import Move
from strata.migrator.phases import Wish
from strata.migrator.reaper import Reaped, Reaper
from strata.migrator.status import status_of
from strata.migrator.steps.verify import compare_by_itself
from strata.migrator.verifier import Comparison
from strata.moving import surroundings
from strata.runtime import Runtime
from strata.tenancy.model import Tier

app = typer.Typer(help="Move tenants between tiers, cells and servers while they work.", rich_markup_mode=None)
app.command("wave")(waves.wave)
app.add_typer(waves.app, name="waves")

MoveId = Annotated[str, typer.Argument(metavar="ID", help="A move's id or its beginning, or a tenant's slug.")]
To = Annotated[Tier, typer.Option("--to", help="The isolation the tenant gets.")]
Cell = Annotated[
    str | None, typer.Option("--cell", help="A shared cell by name (default: the one it is in, or the best).")
]
Server = Annotated[str | None, typer.Option("--server", help="Where a dedicated database is made (default: the best).")]
Retention = Annotated[
    str, typer.Option("--retention", metavar="48h", help="How long the move can be rolled back; 0s: not at all.")
]
Hold = Annotated[bool, typer.Option("--hold", help="Stop before the cut-over, until strata migrate cutover.")]


@app.command("plan")
def plan(
    slug: Slug, to: To, cell: Cell = None, server: Server = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Say what a move would do and what stands against it. Changes nothing."""

    async def act(runtime: Runtime) -> Plan:
        return await runtime.desk.plan(Order(slug, to, cell=cell, server=server))

    planned = perform(act, data_dir)
    if as_json:
        print_json(planned)
        return
    print_line(f"{slug}: from {planned.source} to {planned.target}, about {planned.rows:,} rows.")
    for number, step in enumerate(planned.steps, 1):
        print_line(f"  {number}. {step}")
    for objection in planned.objections:
        print_line(f"  Against it: {objection}", style="red")
    if not planned.objections:
        print_line(f"Nothing stands against it: strata migrate start {slug} --to {to.value}")


@app.command("start")
def start(
    slug: Slug,
    to: To,
    cell: Cell = None,
    server: Server = None,
    hold: Hold = False,
    retention: Retention = "48h",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Write a move down; a worker runs it."""
    order = Order(slug, to, cell=cell, server=server, hold=hold, retention_s=duration_s(retention))

    async def act(runtime: Runtime) -> Move:
        return await runtime.desk.start(order, actor())

    move = perform(act, data_dir)
    if as_json:
        print_json(status_of(move))
        return
    print_line(f"Started {move.id}: {slug} from {move.source} to {move.target}.")
    print_line(f"To follow it: strata migrate watch {slug}")


@app.command("watch")
def watch(name: MoveId = "", data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Follow a move live until it rests: a bar on a terminal, JSON lines in a pipe. Default: the newest move."""

    async def act(runtime: Runtime) -> None:
        await watch_move(runtime, name, as_json=as_json)

    perform(act, data_dir)


@app.command("status")
def status(name: MoveId = "", data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """The latest move of a tenant, or of all."""

    async def act(runtime: Runtime) -> Move:
        return await runtime.desk.find(name)

    move = perform(act, data_dir)
    if as_json:
        print_json(status_of(move))
        return
    shown = msgspec.to_builtins(status_of(move))
    shown |= {"from": str(move.source), "to": str(move.target)}
    shown.pop("tables")
    failure = shown.pop("failure")
    print_facts({name: value for name, value in shown.items() if value is not None})
    if failure is not None:
        print_line(f"Failed in {failure['phase']}: {failure['detail']}", style="red")
        print_line(failure["tenant"])
        print_line(f"Next: {failure['next']}")


@app.command("list")
def list_moves(
    slug: Annotated[str | None, typer.Option("--tenant", metavar="SLUG", help="Only this tenant's.")] = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Only those that have not ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Moves, newest first."""

    async def act(runtime: Runtime) -> list[Move]:
        return await runtime.desk.moves.newest(slug=slug, unfinished=unfinished, limit=limit)

    moves = perform(act, data_dir)
    if as_json:
        print_json({"moves": [status_of(move) for move in moves]})
        return
    print_table(
        ("ID", "TENANT", "FROM", "TO", "PHASE", "STARTED", "WRITE BLOCK"),
        (
            (
                move.id,
                move.slug,
                move.source,
                move.target,
                move.phase,
                f"{move.created_at:%Y-%m-%d %H:%M:%S}",
                None if move.write_block_ms is None else f"{move.write_block_ms:.0f} ms",
            )
            for move in moves
        ),
        empty="No moves: strata migrate start makes one.",
    )


@app.command("cutover")
def cut_over(name: MoveId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Let a move that was started with --hold cut over."""
    _ask(name, Wish.CUT_OVER, data_dir, as_json=as_json)


@app.command("rollback")
def roll_back(name: MoveId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Take the tenant back to its old home, with everything it has written since."""
    _ask(name, Wish.ROLL_BACK, data_dir, as_json=as_json)


@app.command("complete")
def complete(name: MoveId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """End the retention now: the old home is removed, and there is no way back."""
    _ask(name, Wish.COMPLETE, data_dir, as_json=as_json)


@app.command("cancel")
def cancel(name: MoveId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Give a move up before its cut-over, the tenant stays where it is; or after `other-home-gone`: the tenant stays closed."""
    _ask(name, Wish.CANCEL, data_dir, as_json=as_json)


@app.command("retry")
def retry(name: MoveId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Try a failed move again, or one that waits, now."""
    _ask(name, Wish.RETRY, data_dir, as_json=as_json)


@app.command("accept-loss")
def accept_loss(
    name: MoveId,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be given up, and change nothing.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """After `home-lost`: give up what the lost home alone had; the tenant lives on in the home it left."""

    async def act(runtime: Runtime) -> tuple[Move, Loss | None]:
        found = await runtime.desk.moves.find(name)
        loss = await runtime.desk.loss(found)
        if dry_run:
            return found, loss
        return await runtime.desk.ask(found.id, Wish.ACCEPT_LOSS, actor()), loss

    move, loss = perform(act, data_dir)
    if as_json:
        print_json({"loss": loss, "move": status_of(move)})
    elif loss is None:
        print_line(f"Nothing of {move.id} ({move.slug}, {move.phase.value}) is lost: there is nothing to accept.")
    else:
        print_line(loss.sentence)
        if loss.gone and move.failure is not None:
            print_line(f"Next: {move.failure.next}")
        if not loss.gone or not dry_run:
            print_line(
                f"{'To accept it: strata migrate accept-loss' if dry_run else 'Accepted: strata migrate watch'} {move.id}"
            )


@app.command("verify")
def verify(name: MoveId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Compare every row of both homes of a move that is retained or held. Exit code 1 when they differ."""

    async def act(runtime: Runtime) -> Comparison:
        around = surroundings(runtime)
        return await compare_by_itself(around, await runtime.desk.find(name))

    comparison = perform(act, data_dir)
    if as_json:
        print_json({"equal": comparison.equal, **msgspec.to_builtins(comparison)})
    else:
        print_table(
            ("TABLE", "SOURCE", "TARGET", "DIFFER"),
            ((t.table, t.source_rows, t.target_rows, t.differing_rows) for t in comparison.tables),
            empty="No tables.",
        )
        for each in comparison.differences:
            key = ", ".join(f"{name}={value}" for name, value in each.key.items())
            print_line(f"{each.kind.value}: {each.table} {key} {' '.join(each.columns)}", style="red")
    if not comparison.equal:
        raise typer.Exit(1)


@app.command("reap")
def reap(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Drop slots, publications and origins that dead moves have left. Workers do it every minute."""

    async def act(runtime: Runtime) -> list[Reaped]:
        return await Reaper(surroundings(runtime)).reap()

    reaped = perform(act, data_dir)
    if as_json:
        print_json({"reaped": reaped})
        return
    print_table(
        ("MOVE", "DROPPED"),
        ((each.move_id, ", ".join(each.dropped)) for each in reaped),
        empty="Nothing was left of dead moves.",
    )


def _ask(name: str, wish: Wish, data_dir: DataDir, *, as_json: bool) -> None:
    async def act(runtime: Runtime) -> Move:
        # Not the newest when the name is empty: a variable that was not set must end no retention.
        found = await runtime.desk.moves.find(name)
        return await runtime.desk.ask(found.id, wish, actor())

    move = perform(act, data_dir)
    if as_json:
        print_json(status_of(move))
    else:
        print_line(
            f"Asked {move.id} ({move.slug}, {move.phase.value}) to {wish.value}: strata migrate watch {move.slug}"
        )
