"""strata tenant plan, entitlements, grant, revoke: what a tenant may have, why, and what changing it would do."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from strata.cli.options import AsJson, DataDir, Slug
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.platform.errors import InvalidInputError
from strata.runtime import Runtime
from strata.tenancy.entitlements.desk import NewGrant, TenantEntitlements
from strata.tenancy.entitlements.grants import GrantKind
from strata.tenancy.entitlements.plan_change import PlanChange

Why = Annotated[str, typer.Option("--reason", help="Why; kept with it.")]
NO_LIMIT = "none"


def plan(
    slug: Slug,
    name: Annotated[str, typer.Argument(metavar="PLAN", help="The plan to move the tenant to.")],
    version: Annotated[int | None, typer.Option(help="One of its versions (default: the newest).")] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the audit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Move a tenant to a plan. Add-ons and overrides stay as they are."""

    async def act(runtime: Runtime) -> PlanChange:
        if dry_run:
            return await runtime.entitlements.preview(slug, name, version)
        return await runtime.entitlements.change_plan(slug, name, actor(), version=version, reason=reason)

    change = perform(act, data_dir)
    if as_json:
        print_json({"dry_run": dry_run, "change": change})
    else:
        _tell(change, dry_run=dry_run)


def entitlements(slug: Slug, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """What a tenant is entitled to, and where each of it comes from."""

    async def act(runtime: Runtime) -> TenantEntitlements:
        return await runtime.entitlements.of(slug)

    _show(perform(act, data_dir), as_json=as_json)


def grant(
    slug: Slug,
    kind: Annotated[GrantKind, typer.Argument(help="add-on, feature or limit.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the add-on, the feature, the limit.")],
    reason: Why,
    amount: Annotated[
        str | None, typer.Option(metavar="N", help="Of an add-on: how many; of a limit: the limit, or «none».")
    ] = None,
    withhold: Annotated[bool, typer.Option("--withhold", help="A feature the tenant shall not have.")] = False,
    expires: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="When it ends, as in 2027-01-31T00:00:00Z (default: never).")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a tenant an add-on, or override a feature or limit of its plan."""
    new = NewGrant(kind, name, reason, _amount(kind, amount), given=not withhold, expires_at=moment(expires))

    async def act(runtime: Runtime) -> TenantEntitlements:
        return await runtime.entitlements.grant(slug, new, actor())

    _show(perform(act, data_dir), as_json=as_json)


def revoke(
    slug: Slug,
    kind: Annotated[GrantKind, typer.Argument(help="add-on, feature or limit.")],
    name: Annotated[str, typer.Argument(metavar="NAME")],
    reason: Why,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """End an add-on or override; what the plan gives remains."""

    async def act(runtime: Runtime) -> TenantEntitlements:
        return await runtime.entitlements.revoke(slug, kind, name, reason, actor())

    _show(perform(act, data_dir), as_json=as_json)


def _amount(kind: GrantKind, given: str | None) -> int | None:
    if given is None and kind is GrantKind.LIMIT:
        detail = "A limit needs --amount: a number, or «none» for no limit."
        raise InvalidInputError(detail)
    if given is None or (kind is GrantKind.LIMIT and given == NO_LIMIT):
        return None
    if not given.isdecimal():
        detail = f"«{given}» is no amount: give a whole number, or «none» for no limit."
        raise InvalidInputError(detail)
    return int(given)


def moment(given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        return datetime.fromisoformat(given)
    except ValueError:
        detail = f"«{given}» is no moment: write it as in 2027-01-31T00:00:00Z."
        raise InvalidInputError(detail) from None


def _show(found: TenantEntitlements, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    older = "" if found.plan_version == found.newest_version else f"; the newest is v{found.newest_version}"
    print_line(f"{found.slug} is on plan {found.plan} v{found.plan_version}{older}.")
    features = [(each.name, "yes" if each.held else "no", ", ".join(each.sources)) for each in found.entitled.features]
    limits = [
        (each.name, NO_LIMIT if each.amount is None else each.amount, ", ".join(each.sources))
        for each in found.entitled.limits
    ]
    print_table(("WHAT", "HAS", "FROM"), [*features, *limits], empty="Nothing.")
    print_table(
        ("GRANT", "NAME", "WHY", "BY", "EXPIRES"),
        ((each.kind, each.name, each.reason, each.granted_by, each.expires_at or "never") for each in found.grants),
        empty="Nothing was granted beside the plan.",
    )


def _tell(change: PlanChange, *, dry_run: bool) -> None:
    print_line(f"{change.slug}: {change.before} -> {change.after}" + (" (nothing was changed)" if dry_run else ""))
    rows: list[tuple[str, str, str]] = [
        *(("feature", name, "gained") for name in change.features_gained),
        *(("feature", name, "lost") for name in change.features_lost),
        *(
            ("limit", each.name, f"{_number(each.before)} -> {_number(each.after)}, {'up' if each.rises else 'down'}")
            for each in change.limits
        ),
        *(("over the limit", each.name, f"{each.used} in use, {each.limit} allowed") for each in change.over),
        *(
            ("kept for days", each.name, f"{_number(each.before)} -> {_number(each.after)}")
            for each in change.retention
        ),
        *(("stays", each, "granted beside the plan") for each in change.kept),
    ]
    if not change.tier_offered:
        rows.append(
            ("tier", str(change.tier), f"not offered by {change.after}; the tenant stays there until it is moved")
        )
    print_table(("", "WHAT", "CHANGE"), rows, empty="That changes nothing the tenant would notice.")
    if change.uncounted:
        print_line(f"What is in use could not be counted: {change.uncounted}")


def _number(value: int | None) -> str:
    return NO_LIMIT if value is None else str(value)
