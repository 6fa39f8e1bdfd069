"""python -m tests.bench [NAME …] [--quick] [--set FIELD=VALUE …] [--out DIRECTORY]

Measures side by side, prints tables and writes the raw results to docs/benchmarks (or --out DIRECTORY), from where
docs/benchmarks.md takes its own. That page says what each benchmark is, and what the numbers were.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import structlog

from tests.bench import (
    apply,
    connections,
    disturbed,
    document,
    events,
    flags,
    imports,
    jobs,
    machine,
    migrator_copy,
    movements,
    moving,
    pipeline,
    reads,
    report,
    resolution,
    round_trips,
    schemas,
    single_tenant,
    slots,
    write_block,
)
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.peer_environment import PeerEnvironment

BENCHMARKS: Mapping[str, Benchmark[Any]] = {
    each.name: each
    for each in (
        single_tenant.BENCHMARK,
        reads.BENCHMARK,
        movements.BENCHMARK,
        pipeline.BENCHMARK,
        # Last of those that share a stand: it gives the cells another address, and their role a new password.
        round_trips.BENCHMARK,
        schemas.BENCHMARK,
        jobs.BENCHMARK,
        events.BENCHMARK,
        resolution.BENCHMARK,
        flags.BENCHMARK,
        connections.BENCHMARK,
        imports.BENCHMARK,
        migrator_copy.BENCHMARK,
        apply.BENCHMARK,
        moving.BENCHMARK,
        moving.TEN_MILLION,
        slots.BENCHMARK,
        write_block.BENCHMARK,
        disturbed.BENCHMARK,
    )
}


def main() -> None:
    given = _arguments()
    # So that a stopped run takes its servers with it.
    signal.signal(signal.SIGTERM, _leave)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    logging.disable(logging.CRITICAL)
    chosen = [each for each in BENCHMARKS.values() if each.name in given.names or not (given.names or each.only_named)]
    plans = _plans(chosen, given)
    facts = machine.facts(PeerEnvironment().versions() if any(each.peers for each in chosen) else None)
    failed = []
    with Stand() as shared:
        for benchmark in chosen:
            begun = time.monotonic()
            stand = nullcontext(shared) if benchmark.shared_stand else Stand(durable=benchmark.durable)
            try:
                with stand as standing:
                    file = _measure(benchmark, standing, plans[benchmark.name], facts, given.out)
            except Exception:  # noqa: BLE001 - what others have measured, or will, stands for itself
                traceback.print_exc()
                failed.append(benchmark.name)
            else:
                print(f"{benchmark.name}: {time.monotonic() - begun:.0f} s; raw results: {file}\n", flush=True)
    if given.out == report.DIRECTORY:
        document.update(report.DOCUMENT, report.DIRECTORY, {name: each.tables for name, each in BENCHMARKS.items()})
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}")


def _measure(
    benchmark: Benchmark[Any], stand: Stand, plan: msgspec.Struct, facts: dict[str, Any], directory: Path
) -> Path:
    file = report.save(benchmark.name, facts, plan, benchmark.run(stand, plan), directory)
    report.show(benchmark.tables(report.load(file)["results"]))
    return file


def _plans(chosen: Sequence[Benchmark[Any]], given: argparse.Namespace) -> dict[str, msgspec.Struct]:
    """Each benchmark's own, with the fields that were given by hand, where it has such fields."""
    plans = {each.name: each.quick if given.quick else each.plan for each in chosen}
    for assignment in given.fields:
        field, _, value = assignment.partition("=")
        having = [name for name, plan in plans.items() if field in plan.__struct_fields__]
        if not having:
            sys.exit(f"None of {', '.join(plans)} has a field «{field}» in its plan.")
        for name in having:
            plans[name] = _with(plans[name], field, value)
    return plans


def _with(plan: msgspec.Struct, field: str, value: str) -> msgspec.Struct:
    several = isinstance(getattr(plan, field), tuple)
    changed = {**msgspec.structs.asdict(plan), field: value.split(",") if several else value}
    try:
        return msgspec.convert(changed, type(plan), strict=False)
    except msgspec.ValidationError as error:
        sys.exit(f"{field}={value}: {error}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog="Plans:\n" + "\n".join(f"  {name}: {_shown(each.plan)}" for name, each in BENCHMARKS.items()),
    )
    parser.add_argument(
        "names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help="see below; default: all that take minutes"
    )
    parser.add_argument("--quick", action="store_true", help="a fraction of the time, and less exact")
    parser.add_argument(
        "--set", dest="fields", metavar="FIELD=VALUE", action="append", default=[], help="of the plan; repeatable"
    )
    parser.add_argument("--out", type=Path, default=report.DIRECTORY, help="where raw results go")
    return parser.parse_args()


def _shown(plan: msgspec.Struct) -> str:
    return ", ".join(f"{field}={value}" for field, value in msgspec.structs.asdict(plan).items())


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(143)


if __name__ == "__main__":
    main()
