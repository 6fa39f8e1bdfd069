"""strata neighbours: who loads the cells, what to do about it, and doing it."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.console.neighbours import Neighbourhood, carry_out, dismiss, look
from strata.runtime import Runtime

app = typer.Typer(help="Noisy neighbours: findings, advice, and carrying it out.", rich_markup_mode=None)

AdviceId = Annotated[UUID, typer.Argument(metavar="ADVICE", help="Its id, as strata neighbours list shows it.")]


@app.command("list")
def list_neighbours(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """What has been found, what is advised, who loads which cell now, and the slowest statements."""

    async def act(runtime: Runtime) -> Neighbourhood:
        return await look(runtime.neighbours)

    seen = perform(act, data_dir)
    if as_json:
        print_json(seen)
        return
    print_table(
        ("ADVICE", "TENANT", "WHAT", "WHY"),
        ((each.id, each.tenant, each.kind.value, each.why) for each in seen.advice),
        empty="Nothing to advise.",
    )
    if seen.decided:
        print_table(
            ("DECIDED", "TENANT", "WHAT", "STATE", "BY"),
            (
                (
                    f"{each.decided_at:%Y-%m-%d %H:%M:%S}",
                    each.tenant,
                    each.kind.value,
                    each.state.value,
                    each.decided_by,
                )
                for each in seen.decided
            ),
            empty="",
        )
    print_table(
        ("SINCE", "CELL", "WHO", "VERDICT", "SHARE", "SLOWER", "UNTIL"),
        (
            (
                f"{each.began_at:%Y-%m-%d %H:%M:%S}",
                each.cell,
                each.tenant or "everyone",
                each.verdict.value,
                f"{each.evidence['share']:.0%}",
                f"{each.evidence['times_slower']}x",
                f"{each.ended_at:%H:%M:%S}" if each.ended_at else "now",
            )
            for each in seen.findings
        ),
        empty="Nobody has stood out.",
    )
    print_table(
        (
            "TENANT",
            "CELL",
            "CONNECTIONS",
            "STATEMENTS/S",
            "ROWS/S",
            "WAITING S/S",
            "CPU (ESTIMATE)",
            "MEMORY (ESTIMATE)",
        ),
        (
            (
                each.tenant,
                each.cell,
                f"{each.connections:.2f}",
                f"{each.statements:.1f}",
                f"{each.rows:.0f}",
                f"{each.waits_s:.2f}",
                f"{each.cpu_estimate:.2f}",
                f"{each.memory_estimate_bytes / 1e6:.0f} MB",
            )
            for each in seen.loads
        ),
        empty="Nothing has been asked in the last half minute.",
    )
    print_table(
        ("TENANT", "CALLS", "MS", "SLOWEST MS", "STATEMENT"),
        (
            (each.tenant, each.calls, each.total_ms, each.slowest_ms, each.statement[:120])
            for each in seen.slow_statements
        ),
        empty="No slow statements.",
    )


@app.command("carry-out")
def carry_out_advice(advice: AdviceId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Do what is advised: hold the tenant back, or start its move."""

    async def act(runtime: Runtime) -> str:
        return await carry_out(runtime.neighbours, runtime.entitlements, runtime.desk, advice, actor())

    done = perform(act, data_dir)
    if as_json:
        print_json({"advice": str(advice), "done": done})
    else:
        print_line(done)


@app.command("dismiss")
def dismiss_advice(advice: AdviceId, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Leave it; the same may be advised again in an hour, if it goes on."""

    async def act(runtime: Runtime) -> None:
        await dismiss(runtime.neighbours, advice, actor())

    perform(act, data_dir)
    if as_json:
        print_json({"advice": str(advice), "dismissed": True})
    else:
        print_line("Dismissed.")
