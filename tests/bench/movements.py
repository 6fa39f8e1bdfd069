"""Movements over HTTP beside trytond-stock: the same goods in and out, first checked to end in the same balances."""

from __future__ import annotations

import http.client
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tests.bench import goods, slices, tryton_side
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.load import LoadGenerator
from tests.bench.parties import Party
from tests.bench.slices import Plan, Subject, measure, results
from tests.bench.tryton_side import Tryton

_CHECKED_MOVES = 25
"""Of each kind of work."""
Line = tuple[str, int]


class BalancesDifferError(Exception):
    """The two sides did not do the same; no time of theirs can be compared."""


class Work(msgspec.Struct, frozen=True):
    kind: str
    skus: Sequence[str]

    @property
    def name(self) -> str:
        return f"{self.kind}, {len(self.skus)} SKU{'s' if len(self.skus) > 1 else ''}"

    def lines(self, count: int) -> list[Line]:
        draw = random.Random(self.name)
        return [(draw.choice(self.skus), draw.randint(1, 9)) for _ in range(count)]


WORKS = [Work(kind, skus) for kind in ("receive", "pick") for skus in ([goods.HOT_SKU], goods.SKUS)]


def run(stand: Stand, plan: Plan) -> dict[str, Any]:
    strata, load = stand.strata_parties, stand.load
    tryton = tryton_side.prepare(stand.ground, stand.peers)
    _stock_up(load, tryton)
    checked = _check_balances(load, tryton, strata[0])
    found: dict[str, Any] = {}
    for work in WORKS:
        subjects = [Subject(tryton_side.NAME, f"{tryton_side.NAME}: {work.name}", tryton.server.pid, may_refuse=True)]
        load.define(subjects[0].target, tryton.server.port, _tryton_errands(tryton, work)(1000))
        for party in strata:
            load.define(party.target(work.name), party.server.port, _strata_errands(party, work)(1000))
            subjects.append(Subject(party.name, party.target(work.name), party.server.pid))
        found[work.name] = {
            str(connections): results(
                measure(load, subjects, plan, connections=connections, postgres_pid=stand.ground.postgres_pid),
                (tryton_side.NAME,),
            )
            for connections in plan.connections
        }
    stand.ground.stop(tryton.server)
    return {"balances checked equal": checked, "work": found}


def _strata_errands(party: Party, work: Work) -> Callable[[int], list[bytes]]:
    return lambda count: party.movements([goods.movement(work.kind, line) for line in work.lines(count)])


def _tryton_errands(tryton: Tryton, work: Work) -> Callable[[int], list[list[bytes]]]:
    write = tryton.receipt if work.kind == "receive" else tryton.pick
    return lambda count: [write([line]) for line in work.lines(count)]


def _stock_up(load: LoadGenerator, tryton: Tryton) -> None:
    receipts = [
        tryton.receipt([(sku, goods.OPENING_STOCK) for sku in goods.SKUS[start : start + 200]])
        for start in range(0, len(goods.SKUS), 200)
    ]
    name = f"{tryton_side.NAME}: opening stock"
    load.define(name, tryton.server.port, receipts)
    load.count(name, len(receipts))


def _check_balances(load: LoadGenerator, tryton: Tryton, party: Party) -> dict[str, Any]:
    """Do every kind of work a number of times on both sides, and compare what it changed for every product."""
    before = (tryton.balances(), _balances(party))
    moves = 0
    for work in WORKS:
        for name, port, errands in (
            (f"{tryton_side.NAME}: check", tryton.server.port, _tryton_errands(tryton, work)(_CHECKED_MOVES)),
            (party.target("check"), party.server.port, _strata_errands(party, work)(_CHECKED_MOVES)),
        ):
            load.define(name, port, errands)
            load.count(name, _CHECKED_MOVES)
        moves += _CHECKED_MOVES
    after = (tryton.balances(), _balances(party))
    theirs, ours = ({sku: new[sku] - old[sku] for sku in goods.SKUS} for old, new in zip(before, after, strict=True))
    if theirs != ours:
        different = [sku for sku in goods.SKUS if theirs[sku] != ours[sku]]
        message = (
            f"{len(different)} balances differ, such as {different[0]}: {theirs[different[0]]}, {ours[different[0]]}"
        )
        raise BalancesDifferError(message)
    return {"movements": moves, "products": len(goods.SKUS), "with": party.name}


def _balances(party: Party) -> dict[str, int]:
    found: dict[str, int] = {}
    connection = http.client.HTTPConnection("127.0.0.1", party.server.port, timeout=30)
    try:
        cursor: str | None = ""
        while cursor is not None:
            path = "/api/v1/stock?limit=100" + (f"&cursor={cursor}" if cursor else "")
            connection.request("GET", path, headers={**party.headers, "Host": party.host})
            page = msgspec.json.decode(connection.getresponse().read())
            for item in page["items"]:
                found[item["sku"]] = found.get(item["sku"], 0) + item["on_hand"]
            cursor = page["next_cursor"]
    finally:
        connection.close()
    return found


BENCHMARK = Benchmark(
    "tryton",
    run,
    slices.tables,
    # Of the slowest some ten fit into a second.
    plan=Plan(rounds=3, seconds=1.5),
    quick=Plan(rounds=1, seconds=4, connections=(8,)),
    peers=True,
    shared_stand=True,
)
