"""strata flag …: what is rolled out to whom; every change can be tried first, and taken back."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from strata.cli.agreements import read_document
from strata.cli.entitlements import moment
from strata.cli.options import AsJson, DataDir, Slug
from strata.cli.output import print_json, print_line, print_table
from strata.cli.surroundings import actor, perform
from strata.platform.errors import InvalidInputError
from strata.platform.paging import Paging
from strata.runtime import Runtime
from strata.tenancy.flags.desk import FlagView
from strata.tenancy.flags.dry_run import DryRun
from strata.tenancy.flags.making import flag_from, share_of, with_canary
from strata.tenancy.flags.model import Flag
from strata.tenancy.flags.stale import StaleFlag, stale_flags
from strata.tenancy.flags.writing import NewOverride

app = typer.Typer(help="Feature flags: what is rolled out to whom.", rich_markup_mode=None)

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The flag's key.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say which tenants would get something else.")]
WhyOption = Annotated[str | None, typer.Option("--reason", help="Why; kept in the history.")]
_SHOWN = 50


@app.command("list")
def list_flags(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Flags by key."""

    async def act(runtime: Runtime) -> list[FlagView]:
        return await runtime.flag_desk.every()

    found = perform(act, data_dir)
    if as_json:
        print_json({"flags": found})
        return
    print_table(
        ("KEY", "STATE", "SHARE", "RULES", "SET BY HAND", "CHANGED", "BY"),
        (
            (
                each.flag.key,
                "killed" if each.flag.killed else "live",
                f"{each.flag.rollout / 100:g} %",
                len(each.flag.rules),
                each.overrides,
                f"{each.changed_at:%Y-%m-%d %H:%M}",
                each.changed_by,
            )
            for each in found
        ),
        empty="No flags: strata flag put KEY makes one.",
    )


@app.command("show")
def show(key: KeyArgument, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """A flag's document, and the tenants for whom it is set by hand."""

    async def act(runtime: Runtime) -> dict[str, object]:
        found = await runtime.flag_desk.get(key)
        return {**msgspec.to_builtins(found), "overrides": await runtime.flag_desk.overrides(key)}

    found = perform(act, data_dir)
    if as_json:
        print_json(found)
    else:
        print_line(json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False))


@app.command("put")
def put(
    key: KeyArgument,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A JSON object; - for standard input; none: a flag that is off."),
    ] = None,
    reason: WhyOption = None,
    dry_run: DryRunOption = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a flag, or replace its document. Members left out have their defaults; seeds left out stay."""
    document = {} if file is None else read_document(file)

    async def wanted(runtime: Runtime) -> Flag:
        views = {each.flag.key: each.flag for each in await runtime.flag_desk.every()}
        return flag_from(key, document, views.get(key))

    _change(wanted, reason, data_dir, dry_run=dry_run, as_json=as_json)


@app.command("rollout")
def rollout(
    key: KeyArgument,
    percent: Annotated[str, typer.Argument(metavar="PERCENT", help="0 to 100, with two decimals at most.")],
    reason: WhyOption = None,
    dry_run: DryRunOption = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Change the share of tenants that get it. Raising it only adds."""
    share = share_of(percent)

    async def wanted(runtime: Runtime) -> Flag:
        return msgspec.structs.replace((await runtime.flag_desk.get(key)).flag, rollout=share)

    _change(wanted, reason, data_dir, dry_run=dry_run, as_json=as_json)


@app.command("canary")
def canary(
    key: KeyArgument,
    segment: Annotated[str, typer.Argument(metavar="SEGMENT", help="Its tenants get the flag first.")],
    reason: WhyOption = None,
    dry_run: DryRunOption = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Give a flag to the tenants of a segment, before its other rules."""

    async def wanted(runtime: Runtime) -> Flag:
        return with_canary((await runtime.flag_desk.get(key)).flag, segment)

    _change(wanted, reason, data_dir, dry_run=dry_run, as_json=as_json)


@app.command("kill")
def kill(key: KeyArgument, reason: WhyOption = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Off for everybody at once, whatever else is said."""
    _switch(key, reason, data_dir, killed=True, as_json=as_json)


@app.command("revive")
def revive(key: KeyArgument, reason: WhyOption = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Take a kill back: the rest of the flag is as it was."""
    _switch(key, reason, data_dir, killed=False, as_json=as_json)


@app.command("override")
def override(
    key: KeyArgument,
    slug: Slug,
    variant: Annotated[
        str | None, typer.Argument(metavar="[VARIANT]", help="None: what the flag gives by itself.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept with it.")] = "set by hand",
    expires: Annotated[str | None, typer.Option(metavar="MOMENT", help="When it ends (default: never).")] = None,
    dry_run: DryRunOption = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Set the variant of one tenant, or end that."""
    new = None if variant is None else NewOverride(variant, reason, moment(expires))

    async def act(runtime: Runtime) -> DryRun | None:
        if dry_run:
            return await runtime.flag_desk.try_override(key, slug, variant)
        await runtime.flag_desk.set_override(key, slug, new, actor(), reason)
        return None

    tried = perform(act, data_dir)
    if tried is not None:
        _tell(tried, as_json=as_json)
    elif as_json:
        print_json({"flag": key, "tenant": slug, "variant": variant})
    else:
        print_line(f"{key} for {slug}: {variant or 'what the flag gives by itself'}.")


@app.command("delete")
def delete(
    key: KeyArgument,
    reason: WhyOption = None,
    dry_run: DryRunOption = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take a flag away; it is off from then on. Its history stays, and undo brings it back."""

    async def act(runtime: Runtime) -> DryRun | None:
        if dry_run:
            return await runtime.flag_desk.try_flag(None, key)
        await runtime.flag_desk.delete(key, actor(), reason=reason)
        return None

    _done(perform(act, data_dir), {"deleted": key}, f"{key} is deleted.", as_json=as_json)


@app.command("undo")
def undo(
    key: KeyArgument,
    reason: WhyOption = None,
    dry_run: DryRunOption = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Take the last change back that was not taken back yet; again: the one before it."""

    async def act(runtime: Runtime) -> DryRun | None:
        if dry_run:
            return await runtime.flag_desk.try_undo(key)
        await runtime.flag_desk.undo(key, actor(), reason=reason)
        return None

    _done(perform(act, data_dir), {"undone": key}, f"The last change of {key} is taken back.", as_json=as_json)


@app.command("history")
def history(
    key: KeyArgument,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """What was done to a flag, newest first."""

    async def act(runtime: Runtime) -> list[Any]:
        return (await runtime.flag_desk.history(key, Paging(limit))).items

    found = perform(act, data_dir)
    if as_json:
        print_json({"changes": found})
        return
    print_table(
        ("AT", "WHO", "WHAT", "WHY"),
        (
            (
                f"{each.at:%Y-%m-%d %H:%M:%S}",
                each.actor,
                ("undo of " if each.undoes else "") + each.subject + (" deleted" if each.after is None else " set"),
                each.reason,
            )
            for each in found
        ),
        empty="Nothing was ever done to such a flag.",
    )


@app.command("explain")
def explain(
    key: KeyArgument,
    slug: Slug,
    user: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An attribute of the user; repeatable.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """What a tenant gets, and why."""
    attributes = dict(_attribute(each) for each in user or ())

    async def act(runtime: Runtime) -> dict[str, object]:
        outcome = runtime.flags.evaluate(key, await runtime.contexts.get_by_slug(slug), attributes)
        return {
            "flag": key,
            "tenant": slug,
            "variant": outcome.variant,
            "value": outcome.value,
            "reason": outcome.reason,
            "detail": outcome.detail,
        }

    found = perform(act, data_dir)
    if as_json:
        print_json(found)
    else:
        print_line(f"{slug} gets «{found['variant']}» of {key}: {found['reason']} {found['detail']}".rstrip())


@app.command("stale")
def stale(
    days: Annotated[int, typer.Option(min=1, help="Unchanged, and unasked or of one answer, for so long.")] = 30,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Flags that have done their work."""

    async def act(runtime: Runtime) -> list[StaleFlag]:
        return await stale_flags(runtime.catalog_engine, days)

    found = perform(act, data_dir)
    if as_json:
        print_json({"flags": found})
        return
    print_table(
        ("KEY", "WHY", "CHANGED", "LAST ASKED", "TIMES"),
        (
            (each.key, ", ".join(each.why), f"{each.changed_at:%Y-%m-%d}", each.asked_at or "never", each.evaluations)
            for each in found
        ),
        empty="None: every flag is either young or at work.",
    )


def _change(
    wanted: Callable[[Runtime], Awaitable[Flag]], reason: str | None, data_dir: DataDir, *, dry_run: bool, as_json: bool
) -> None:
    async def act(runtime: Runtime) -> DryRun | FlagView:
        flag = await wanted(runtime)
        if dry_run:
            return await runtime.flag_desk.try_flag(flag, flag.key)
        return await runtime.flag_desk.put(flag, actor(), reason=reason)

    match perform(act, data_dir):
        case DryRun() as tried:
            _tell(tried, as_json=as_json)
        case view:
            _tell_view(view, as_json=as_json)


def _switch(key: str, reason: str | None, data_dir: DataDir, *, killed: bool, as_json: bool) -> None:
    async def act(runtime: Runtime) -> FlagView:
        return await runtime.flag_desk.kill(key, actor(), killed=killed, reason=reason)

    _tell_view(perform(act, data_dir), as_json=as_json)


def _tell_view(view: FlagView, *, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    state = "killed: off for everybody" if view.flag.killed else f"live, at {view.flag.rollout / 100:g} %"
    print_line(f"{view.flag.key} v{view.version} is {state}.")


def _done(tried: DryRun | None, document: dict[str, str], sentence: str, *, as_json: bool) -> None:
    if tried is not None:
        _tell(tried, as_json=as_json)
    elif as_json:
        print_json(document)
    else:
        print_line(sentence)


def _tell(tried: DryRun, *, as_json: bool) -> None:
    if as_json:
        print_json({"dry_run": True, **msgspec.to_builtins(tried)})
        return
    for effect in tried.effects:
        print_line(f"{effect.flag}: {effect.changed} of {effect.tenants} tenants would get another variant.")
    print_table(
        ("FLAG", "TENANT", "NOW", "THEN", "WHY"),
        ((each.flag, each.tenant, each.before, each.after, each.reason_after) for each in tried.changed[:_SHOWN]),
        empty="Nobody would notice.",
    )
    if len(tried.changed) > _SHOWN:
        print_line(f"… and {len(tried.changed) - _SHOWN} more: --json has them all.")
    if tried.asks_users:
        print_line("Rules look at users, who are not known here: for these counts such rules do not hold.")


def _attribute(given: str) -> tuple[str, object]:
    name, found, value = given.partition("=")
    if not found or not name:
        raise InvalidInputError(f"«{given}» is no attribute: write NAME=VALUE.")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return name, value
