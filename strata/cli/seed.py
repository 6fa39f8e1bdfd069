"""strata seed"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from strata.cli.demo import SeedOutcome, ensure_demo_tenants, seed_demo_tenants
from strata.cli.demo import seed as seed_tenant
from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import perform
from strata.cli.traffic import Verdict, run_traffic
from strata.inventory.seeding import AssortmentName
from strata.runtime import Runtime

_NAMED = 5


def seed(
    slugs: Annotated[
        list[str] | None, typer.Argument(metavar="[SLUG]...", help="Tenants to fill; none: the three demo tenants.")
    ] = None,
    assortment: Annotated[
        AssortmentName, typer.Option(help="What the named tenants deal in.")
    ] = AssortmentName.HARDWARE,
    traffic: Annotated[
        str | None,
        typer.Option("--traffic", metavar="SLUG", help="Instead: write and read as this tenant until Ctrl-C."),
    ] = None,
    rate: Annotated[int, typer.Option(min=1, max=2000, help="Writes per second, with --traffic.")] = 20,
    seconds: Annotated[
        int | None, typer.Option(min=1, help="How long, with --traffic (default: until Ctrl-C).")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give tenants believable stock: products, places, and a month of movements. A second time it does nothing.

    With --traffic: keep a running Strata busy as one tenant over HTTP, then look whether every acknowledged write is
    there exactly once. Exit code 1 when not, or when a request failed.
    """
    if traffic is not None:
        _keep_busy(traffic, rate, seconds, data_dir, as_json=as_json)
        return

    async def act(runtime: Runtime) -> list[SeedOutcome]:
        if not slugs:
            await ensure_demo_tenants(runtime)
            return await seed_demo_tenants(runtime)
        return [await seed_tenant(runtime, (await runtime.directory.get(slug)).id, assortment) for slug in slugs]

    outcomes = perform(act, data_dir)
    if as_json:
        print_json({"tenants": outcomes})
        return
    print_table(
        ("TENANT", "", "PRODUCTS", "BINS", "MOVEMENTS"),
        (
            (
                o.slug,
                "seeded" if o.seeded else o.reason or "nothing to do",
                *((o.products, o.bins, o.movements) if o.seeded else ()),
            )
            for o in outcomes
        ),
        empty="No tenants.",
    )


def _keep_busy(slug: str, rate: int, seconds: int | None, data_dir: Path | None, *, as_json: bool) -> None:
    async def act(runtime: Runtime) -> Verdict:
        return await run_traffic(runtime, slug, rate=rate, seconds=seconds, as_json=as_json)

    verdict = perform(act, data_dir)
    if as_json:
        print_json({"event": "verdict", "holds": verdict.holds, **msgspec.to_builtins(verdict)})
    else:
        print_line(
            f"{verdict.acknowledged:,} writes acknowledged, {verdict.reads:,} reads, {verdict.failed} failed;"
            f" slowest {verdict.slowest_ms:.0f} ms."
        )
        if verdict.holds:
            print_line("Every acknowledged write is there exactly once.", style="green")
        for what, each in (("Missing", verdict.missing), ("Doubled", verdict.doubled), ("Failed", verdict.failures)):
            if each:
                print_line(f"{what}: {'; '.join(each[:_NAMED])}{' …' if len(each) > _NAMED else ''}", style="red")
    if not verdict.holds:
        raise typer.Exit(1)
