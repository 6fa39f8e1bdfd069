"""Evaluations of feature flags on one core: Strata's own, through OpenFeature, UnleashClient and the GrowthBook SDK.

The same flags and users for all; first every answer is compared. Rules must give the same answers; percentages hash
differently in each product, so there the shares are compared. Measured is processor time, by turns, the median of rounds.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from openfeature import api
from sqlalchemy.ext.asyncio import create_async_engine

from strata.platform.redis_link import RedisLink
from strata.platform.settings import FlagSettings
from strata.tenancy.context import TenantContext
from strata.tenancy.flags.compiled_set import CompiledSet
from strata.tenancy.flags.holder import Flags
from strata.tenancy.flags.model import Flag, FlagSet
from strata.tenancy.flags.provider import FlagProvider, flag_context
from strata.tenancy.model import Placement, TenantStatus, Tier
from tests.bench.benchmark import Benchmark, Stand
from tests.bench.machine import ROOT
from tests.bench.tables import Table

_PEERS = "tests.bench.peers.flags"
_ALLOWED_SHARE_ERROR = 0.05
_PERCENT = 30
_DAY = datetime(2026, 1, 1, tzinfo=UTC)

STRATA, OPENFEATURE, UNLEASH, GROWTHBOOK = "Strata", "Strata through OpenFeature", "UnleashClient", "GrowthBook SDK"
Document = dict[str, Any]


class Plan(msgspec.Struct, frozen=True):
    rounds: int
    users: int


class Question(msgspec.Struct, frozen=True):
    """Flags and users as every side is given them."""

    flags: list[Document]
    users: list[Document]


def _condition(attribute: str, operator: str, *values: object) -> Document:
    return {"attribute": attribute, "operator": operator, "values": list(values)}


def _question(count: int) -> Question:
    draw = random.Random(20260101)
    users = [
        {
            "id": str(UUID(int=draw.getrandbits(128), version=4)),
            "plan": draw.choice(["free", "starter", "business", "enterprise"]),
            "country": draw.choice(["DE", "FR", "IT", "US", "JP", "BR"]),
            "email": draw.choice(["ada", "bob", "eve"]) + f"{draw.randrange(1000)}@example.com",
            "seats": draw.randrange(200),
            "joined": (_DAY - timedelta(days=draw.randrange(1000))).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "app": f"{draw.randrange(3)}.{draw.randrange(20)}.{draw.randrange(5)}",
        }
        for _ in range(count)
    ]
    rules: list[list[Document]] = [
        [_condition("plan", "in", "business", "enterprise")],
        [_condition("country", "in", "DE", "FR", "IT")],
        [_condition("seats", "at-least", 100)],
        [_condition("email", "starts-with", "ada")],
        [_condition("app", "version-at-least", "1.9.0")],
        [_condition("joined", "before", "2025-01-01T00:00:00Z")],
        [_condition("plan", "in", "starter"), _condition("country", "in", "DE"), _condition("seats", "at-least", 10)],
        [_condition("id", "in", *(user["id"] for user in users[::10]))],
    ]
    flags: list[Document] = [
        {"key": f"rule-{number}", "live": True, "rules": [{"when": when}]} for number, when in enumerate(rules)
    ]
    flags.append({"key": "two-rules", "live": True, "rules": [{"when": rules[3]}, {"when": rules[0]}]})
    flags.append({"key": "killed", "live": False, "rules": [{"when": rules[0]}]})
    flags.extend(
        {"key": f"share-{n}", "live": True, "rules": [{"when": [], "percent": _PERCENT, "seed": f"seed-{n}"}]}
        for n in range(2)
    )
    return Question(flags, users)


class Side:
    """One who is asked: all flags for all users, in one order."""

    def __init__(self, name: str, answers: Callable[[], list[bool]], turn: Callable[[], float]) -> None:
        self.name = name
        self.answers = answers
        self.turn = turn
        """Processor nanoseconds of an evaluation, over one pass."""


def _strata_flag(document: Document) -> Flag:
    flag: Document = {"key": document["key"], "seed": "bench", "variant_seed": "bench", "killed": not document["live"]}
    rules = []
    for number, rule in enumerate(document["rules"]):
        if "percent" in rule:
            flag |= {"rollout": rule["percent"] * 100, "seed": rule["seed"]}
            continue
        when = [
            {
                **each,
                "attribute": {"plan": "tenant.plan", "id": "tenant.id"}.get(
                    each["attribute"], f"user.{each['attribute']}"
                ),
            }
            for each in rule["when"]
        ]
        rules.append({"name": f"rule {number}", "when": when, "serve": "on"})
    return msgspec.convert({**flag, "rules": rules}, Flag)


def _tenant(user: Document) -> TenantContext:
    return TenantContext(
        id=UUID(user["id"]),
        slug="bench",
        name="Bench",
        status=TenantStatus.ACTIVE,
        plan=user["plan"],
        version=1,
        placement=Placement("cell-1", Tier.SHARED, "shared", 1),
    )


def _strata_sides(question: Question) -> list[Side]:
    keys = [each["key"] for each in question.flags]
    compiled = CompiledSet(FlagSet(1, {each["key"]: _strata_flag(each) for each in question.flags}, {}), strict=True)
    tenants = [(_tenant(user), user) for user in question.users]
    flags = Flags(
        create_async_engine("postgresql+asyncpg://nowhere/none"),
        RedisLink("redis://127.0.0.1:1", timeout_s=1),
        FlagSettings(),
    )
    flags._set = compiled
    held = {context.id: context for context, _ in tenants}
    api.set_provider_and_wait(FlagProvider(flags, held.get), "bench")
    client = api.get_client("bench")
    contexts = [flag_context(context, user) for context, user in tenants]

    def direct() -> Iterator[bool]:
        evaluate = flags.evaluate
        for context, user in tenants:
            for key in keys:
                yield evaluate(key, context, user).is_on

    def standard() -> Iterator[bool]:
        value = client.get_boolean_value
        for context in contexts:
            for key in keys:
                yield value(key, False, context)  # noqa: FBT003 - the standard's own order

    return [_own(STRATA, direct), _own(OPENFEATURE, standard)]


def _own(name: str, pass_over: Callable[[], Iterator[bool]]) -> Side:
    def turn() -> float:
        started = time.process_time_ns()
        count = sum(1 for _ in pass_over())
        return (time.process_time_ns() - started) / count

    return Side(name, lambda: list(pass_over()), turn)


def _peer_side(name: str, program: str, word: str, question: Question, stack: ExitStack) -> Side:
    process = stack.enter_context(
        subprocess.Popen(
            [program, "-m", f"{_PEERS}.{word}_side"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    )
    stack.callback(process.kill)

    def ask(line: str) -> Any:  # noqa: ANN401 - what the other side says
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def turn() -> float:
        found = ask("round")
        return float(found["cpu_ns"] / found["evaluations"])

    assert ask(msgspec.json.encode(question).decode()) == {"ready": True}
    return Side(name, lambda: list(ask("answers")), turn)


def _compare(question: Question, sides: Sequence[Side]) -> Document:
    """Raises AssertionError where answers differ that must not."""
    keys = [each["key"] for each in question.flags]
    columns = {side.name: _by_flag(side.answers(), keys) for side in sides}
    shares: dict[str, dict[str, float]] = {}
    for key in keys:
        found = {name: answers[key] for name, answers in columns.items()}
        if key.startswith("share-"):
            shares[key] = {name: sum(answers) / len(answers) for name, answers in found.items()}
            wrong = {n: s for n, s in shares[key].items() if abs(s - _PERCENT / 100) > _ALLOWED_SHARE_ERROR}
            assert not wrong, (key, wrong)
        else:
            for name, answers in found.items():
                assert answers == found[STRATA], f"{name} answers {key} otherwise than Strata"
            assert key == "killed" or 0 < sum(found[STRATA]) < len(question.users), f"{key} tells nobody apart"
    return {"same_answers": len([k for k in keys if k not in shares]) * len(question.users), "shares": shares}


def _by_flag(answers: list[bool], keys: Sequence[str]) -> dict[str, list[bool]]:
    return {key: answers[number :: len(keys)] for number, key in enumerate(keys)}


def run(stand: Stand, plan: Plan) -> Document:
    question = _question(plan.users)
    program = stand.peers.program("python")
    with ExitStack() as stack:
        sides = [
            *_strata_sides(question),
            _peer_side(UNLEASH, program, "unleash", question, stack),
            _peer_side(GROWTHBOOK, program, "growthbook", question, stack),
        ]
        compared = _compare(question, sides)
        for side in sides:
            side.turn()
        taken: dict[str, list[float]] = {side.name: [] for side in sides}
        for number in range(plan.rounds):
            # Another one begins each time: whoever comes after a busy one would always find a warm machine.
            for side in (*sides[number % len(sides) :], *sides[: number % len(sides)]):
                taken[side.name].append(side.turn())
    return {"flags": len(question.flags), "users": plan.users, "compared": compared, "cpu_ns": taken}


def tables(found: Document) -> Sequence[Table]:
    base = statistics.median(found["cpu_ns"][STRATA])
    rows: list[tuple[str, ...]] = [("", "evaluations/s", "µs each", "times Strata")]
    for name, taken in found["cpu_ns"].items():
        median = statistics.median(taken)
        rows.append((name, f"{1e9 / median:,.0f}", f"{median / 1000:.2f}", f"{median / base:.1f}"))
    title = (
        f"Evaluations on one core, {found['flags']} flags for {found['users']:,} tenants;"
        f" {found['compared']['same_answers']:,} answers compared and equal"
    )
    return [Table(rows, title)]


BENCHMARK = Benchmark("flags", run, tables, Plan(rounds=15, users=1000), Plan(rounds=3, users=200), peers=True)
