"""Puts the tables of docs/benchmarks.md in from the raw results, so that no number there was typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec


def update(document: Path, directory: Path) -> None:
    """Replaces what stands between `<!-- results: NAME -->` and `<!-- end -->` for every NAME.json in the directory."""
    text = document.read_text(encoding="utf-8")
    for file in sorted(directory.glob("*.json")):
        begin = f"<!-- results: {file.stem} -->\n"
        before, found_begin, rest = text.partition(begin)
        _, end, after = rest.partition("<!-- end -->")
        if found_begin and end:
            found = msgspec.json.decode(file.read_bytes())
            tables = f"{_provenance(found, file)}\n\n{_tables(found)}"
            text = f"{before}{begin}\n{tables}\n\n{end}{after}"
    document.write_text(text, encoding="utf-8")


def _provenance(found: dict[str, Any], file: Path) -> str:
    machine, commit = found["machine"], found["commit"]
    state = "" if commit["clean"] else ", with uncommitted changes"
    return (
        f"{found['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux"
        f" {machine['kernel']}, load average {machine['load_average'][0]:.1f} at the start; commit {commit['id'][:12]}{state};"
        f" `{found['command']}`; raw: [{file.name}](benchmarks/{file.name})."
    )


def _tables(found: dict[str, Any]) -> str:
    results = found["results"]
    if "relay" in results:
        return _events(results)
    if "all schemas, s" in results:
        return _schemas(found["plan"], results)
    if "work" not in results:
        return _round_trips(results)
    return "\n\n".join(
        f"**{work}, {connections} at a time**\n\n{_table(measured)}"
        for work, by_connections in results["work"].items()
        for connections, measured in by_connections.items()
    )


def _table(measured: dict[str, Any]) -> str:
    bases = [name for name in measured if any(name in each["ratio_to"] for each in measured.values())]
    head = ["", "p50 µs", "p95", "p99", "requests/s", "CPU µs, application", "CPU µs, PostgreSQL", "refused"]
    rows = [[*head, *(f"p50 ÷ {base}" for base in bases)]]
    for name, each in measured.items():
        latency, cpu = each["latency_us"], each["cpu_us_per_request"]
        numbers = [latency["p50"], latency["p95"], latency["p99"], each["requests_per_s"]]
        numbers += [cpu["application"], cpu["postgresql"], each["refused"]]
        ratios = [_ratio(each["ratio_to"].get(base)) for base in bases]
        rows.append([name, *(f"{number:,.0f}" for number in numbers), *ratios])
    return _markdown(rows)


def _ratio(found: dict[str, Any] | None) -> str:
    return f"{found['p50']['median']:.2f}" if found else ""


def _schemas(plan: dict[str, Any], results: dict[str, Any]) -> str:
    created, everything = results["tenant created, ms"], results["all schemas, s"]
    ratios = results["times faster per schema"]
    rows = [["", "Strata", "django-tenants", "times faster"]]
    peer = created["median"]["django-tenants"]
    for name, ratio in created["times faster"].items():
        rows.append([f"a tenant, {name}", f"{created['median'][name]:.1f} ms", f"{peer:.0f} ms", f"{ratio:.1f}"])
    numbers = f"{plan['schemas']} schemas; {plan['peer_schemas']} of django-tenants"
    for work, seconds in everything["strata"].items():
        theirs = everything["django-tenants"].get(work)
        rows.append(
            [
                f"{work} ({numbers})",
                f"{seconds:.2f} s",
                f"{theirs:.0f} s" if theirs else "",
                f"{ratios[work]:.0f} a schema" if work in ratios else "",
            ]
        )
    return _markdown(rows)


def _round_trips(results: dict[str, Any]) -> str:
    works = list(next(iter(results.values())))
    rows = [["", *works]]
    for name, each in results.items():
        rows.append(
            [name, *(", ".join(f"{wire} {trips:g}" for wire, trips in each[work]["then"].items()) for work in works)]
        )
    return _markdown(rows)


def _events(results: dict[str, Any]) -> str:
    emission, at_rest = results["emission_us"], results["at_rest_ms"]
    through = [["through the relay", "events", "seconds", "events/s"]]
    through += [
        [name, f"{each['events']:,}", f"{each['seconds']:g}", f"{each['events_per_s']:,}"]
        for name, each in results["relay"].items()
    ]
    rest = [["at rest, ms", *at_rest], ["commit to consumer", *(f"{value:g}" for value in at_rest.values())]]
    cost = [
        ["two-line movement in PostgreSQL, p50 µs", *emission],
        ["", *(f"{value:,g}" for value in emission.values())],
    ]
    return "\n\n".join(_markdown(each) for each in (through, rest, cost))


def _markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))
