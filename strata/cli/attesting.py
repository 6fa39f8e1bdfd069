"""strata tenant attest"""

from __future__ import annotations

from strata.cli.options import AsJson, DataDir, Slug
from strata.cli.output import print_facts, print_json, print_line, print_table
from strata.cli.surroundings import perform
from strata.runtime import Runtime
from strata.tenancy.attestation.statement import SignedStatement

_NOT_PASSED = 1


def attest(slug: Slug, data_dir: DataDir = None, as_json: AsJson = False) -> int:
    """Where a tenant's data lives, what separates it, and what the live database says of that now; exit code 1 if it fails."""

    async def act(runtime: Runtime) -> SignedStatement:
        return await runtime.attestation.attest((await runtime.directory.get(slug)).id)

    made = perform(act, data_dir)
    if as_json:
        print_json(made)
    else:
        _show(made)
    return 0 if made.statement.passed else _NOT_PASSED


def _show(made: SignedStatement) -> None:
    statement, place = made.statement, made.statement.place
    print_line(f"{statement.name} ({statement.slug}), {statement.issued_at:%Y-%m-%d %H:%M:%S %Z}", style="bold")
    print_line(place.words)
    print_facts(
        {
            "region": place.region,
            "server": place.server,
            "cell": place.cell,
            "database": place.database,
            "schema": place.schema,
            "epoch": place.epoch,
        }
    )
    for wall in statement.walls:
        print_line(f"- {wall}")
    print_table(
        ("CHECK", "VERDICT", "FOUND"),
        ((check.name, "passed" if check.passed else "FAILED", check.found) for check in statement.checks),
        empty="",
    )
    print_line(f"SHA-256 {made.digest}")
    print_line(f"Signature {made.signature}")
