"""strata seed"""

from __future__ import annotations

from typing import Annotated

import typer

from strata.cli.demo import SeedOutcome, ensure_demo_tenants, seed_demo_tenants
from strata.cli.demo import seed as seed_tenant
from strata.cli.options import AsJson, DataDir
from strata.cli.output import print_json, print_table
from strata.cli.surroundings import perform
from strata.inventory.seeding import AssortmentName
from strata.runtime import Runtime


def seed(
    slugs: Annotated[
        list[str] | None, typer.Argument(metavar="[SLUG]...", help="Tenants to fill; none: the three demo tenants.")
    ] = None,
    assortment: Annotated[
        AssortmentName, typer.Option(help="What the named tenants deal in.")
    ] = AssortmentName.HARDWARE,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give tenants believable stock: products, places, and a month of movements. A second time it does nothing."""

    async def act(runtime: Runtime) -> list[SeedOutcome]:
        if not slugs:
            await ensure_demo_tenants(runtime)
            return await seed_demo_tenants(runtime)
        return [await seed_tenant(runtime, (await runtime.directory.get(slug)).id, assortment) for slug in slugs]

    outcomes = perform(act, data_dir, as_json=as_json)
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
