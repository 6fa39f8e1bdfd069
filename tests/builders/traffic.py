"""Live writers and readers over HTTP, and a ledger of what was acknowledged to them, to be held against the database."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any

import httpx
import msgspec
from sqlalchemy import text

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from tests.builders.inventory import stocked
from tests.builders.site import Site

# Between a client's writes: the clients share the processors with what they disturb.
PAUSE_S = 0.2


class Act(StrEnum):
    CREATE = "create"
    RENAME = "rename"
    DELETE = "delete"
    RECEIVE = "receive"


class Entry(msgspec.Struct, frozen=True):
    """One acknowledged write."""

    act: Act
    sku: str
    value: str | int


class Ledger(msgspec.Struct):
    """Append-only. `failures`: answers that were not the one expected; `unknown`: writes that nobody answered for,
    each with how many had been acknowledged before it.

    `outages`: a server dies on purpose, so a request may end with a 5xx; whether it was done is then unknown too.
    """

    outages: bool = False
    entries: list[Entry] = []
    failures: list[str] = []
    unknown: list[tuple[int, Entry]] = []
    excused: int = 0
    latencies_ms: list[float] = []
    reads: int = 0

    @property
    def slowest_ms(self) -> float:
        return max(self.latencies_ms, default=0.0)

    def excuses(self, status: int) -> bool:
        self.excused += self.outages and status >= 500
        return self.outages and status >= 500

    def names(self) -> dict[str, str]:
        """Products whose last write was acknowledged: these must be there, with their names."""
        there: dict[str, str] = {}
        for entry in self.entries:
            match entry.act:
                case Act.CREATE | Act.RENAME:
                    there[entry.sku] = str(entry.value)
                case Act.DELETE:
                    del there[entry.sku]
                case Act.RECEIVE:
                    pass
        for before, entry in self.unknown:
            if all(later.sku != entry.sku for later in self.entries[before:]):
                there.pop(entry.sku, None)
        return there

    def may_have_received(self) -> dict[str, int]:
        """With every movement that nobody answered for."""
        sums = self.received()
        for _, entry in self.unknown:
            if entry.act is Act.RECEIVE:
                sums[entry.sku] = sums.get(entry.sku, 0) + int(entry.value)
        return sums

    def received(self) -> dict[str, int]:
        sums: dict[str, int] = {}
        for entry in self.entries:
            if entry.act is Act.RECEIVE:
                sums[entry.sku] = sums.get(entry.sku, 0) + int(entry.value)
        return sums


class _Writer:
    """One after the other, so that the last acknowledged state of its products is known."""

    def __init__(self, client: httpx.AsyncClient, ledger: Ledger, name: str, bin_code: str, seed: int) -> None:
        self._client = client
        self._ledger = ledger
        self._name = name
        self._bin = bin_code
        self._chance = random.Random(seed)
        self._own: list[tuple[str, str]] = []
        self._made = 0
        self._stock_sku = f"K-{name}"

    async def begin(self) -> None:
        await self._create(self._stock_sku)

    async def act(self) -> None:
        chance = self._chance.random()
        if chance < 0.4 or len(self._own) < 2:
            self._made += 1
            await self._create(f"P-{self._name}-{self._made}")
        elif chance < 0.6:
            sku, product_id = self._chance.choice(self._own[1:])
            name = f"{sku} renamed {self._chance.getrandbits(32):x}"
            answer = await self._send(
                "PATCH", f"/api/v1/products/{product_id}", {"name": name}, Entry(Act.RENAME, sku, name), 200
            )
            assert answer is None or answer["name"] == name
        elif chance < 0.7:
            own = self._own.pop(self._chance.randrange(1, len(self._own)))
            await self._send("DELETE", f"/api/v1/products/{own[1]}", None, Entry(Act.DELETE, own[0], ""), 204)
        else:
            quantity = self._chance.randint(1, 9)
            movement = {
                "kind": "receive",
                "lines": [{"sku": self._stock_sku, "bin": self._bin, "quantity": quantity}],
            }
            await self._send("POST", "/api/v1/movements", movement, Entry(Act.RECEIVE, self._stock_sku, quantity), 201)

    async def read(self) -> None:
        """What was acknowledged is there at once, whoever reads."""
        expected = self._ledger.received().get(self._stock_sku, 0)
        begun = time.monotonic()
        try:
            answer = await self._client.get("/api/v1/stock", params={"sku": self._stock_sku})
        except httpx.TransportError as error:
            if not self._ledger.excuses(503):
                self._ledger.failures.append(f"GET stock {error!r}")
            return
        self._ledger.latencies_ms.append((time.monotonic() - begun) * 1000)
        if self._ledger.excuses(answer.status_code):
            return
        if answer.status_code != 200:
            self._ledger.failures.append(f"GET stock {answer.status_code} {answer.text[:200]}")
            return
        self._ledger.reads += 1
        on_hand = sum(item["on_hand"] for item in answer.json()["items"])
        if on_hand < expected:
            self._ledger.failures.append(f"read {on_hand} of {self._stock_sku}, {expected} had been acknowledged")

    async def _create(self, sku: str) -> None:
        answer = await self._send(
            "POST", "/api/v1/products", {"sku": sku, "name": sku}, Entry(Act.CREATE, sku, sku), 201
        )
        if answer is not None:
            self._own.append((sku, answer["id"]))

    async def _send(self, method: str, path: str, body: Any, entry: Entry, expected: int) -> Any:  # noqa: ANN401
        begun = time.monotonic()
        try:
            answer = await self._client.request(method, path, json=body)
        except httpx.TransportError:
            self._ledger.unknown.append((len(self._ledger.entries), entry))
            return None
        self._ledger.latencies_ms.append((time.monotonic() - begun) * 1000)
        if self._ledger.excuses(answer.status_code):
            self._ledger.unknown.append((len(self._ledger.entries), entry))
            return None
        if answer.status_code != expected:
            self._ledger.failures.append(f"{method} {path} {answer.status_code} {answer.text[:300]}")
            return None
        self._ledger.entries.append(entry)
        return answer.json() if answer.content else {}


@asynccontextmanager
async def traffic(
    site: Site, context: TenantContext, *, writers: int = 3, seed: int = 1, outages: bool = False
) -> AsyncIterator[Ledger]:
    """Write and read during the block; what was acknowledged stands in the ledger when it has ended."""
    await stocked(site.runtime, context, skus=1, bins=1)
    ledger = Ledger(outages=outages)
    stop = asyncio.Event()

    async def work(client: httpx.AsyncClient, number: int) -> None:
        writer = _Writer(client, ledger, f"{number}", "B-0", seed * 100 + number)
        await writer.begin()
        while not stop.is_set():
            await writer.act()
            await writer.read()
            await asyncio.sleep(PAUSE_S)

    async with site.client(context) as client, asyncio.TaskGroup() as group:
        client.timeout = httpx.Timeout(30.0)
        for number in range(writers):
            group.create_task(work(client, number))
        try:
            yield ledger
        finally:
            stop.set()


async def assert_kept(runtime: Runtime, context: TenantContext, ledger: Ledger) -> None:
    """Every acknowledged write is there, once."""
    assert ledger.failures == []
    now = await runtime.contexts.fresh(context.id)
    async with runtime.tenants.reading(now) as session:
        products = {
            row.sku: row.name
            for row in await session.execute(text("SELECT sku, name FROM product WHERE sku ~ '^[PK]-'"))
        }
        balances = {
            row.sku: row.total
            for row in await session.execute(
                text(
                    "SELECT p.sku, sum(b.on_hand)::bigint AS total FROM stock_balance b"
                    " JOIN product p ON p.id = b.product_id GROUP BY p.sku"
                )
            )
        }
        ledgers = {
            row.sku: row.total
            for row in await session.execute(
                text(
                    "SELECT p.sku, sum(l.quantity)::bigint AS total FROM stock_ledger l"
                    " JOIN product p ON p.id = l.product_id GROUP BY p.sku"
                )
            )
        }
    names = ledger.names()
    assert {sku: name for sku, name in products.items() if sku in names} == names
    extra = products.keys() - names.keys() - {entry.sku for _, entry in ledger.unknown}
    assert extra == set()
    assert ledgers == balances
    received, perhaps = ledger.received(), ledger.may_have_received()
    assert balances.keys() <= perhaps.keys()
    for sku in perhaps:
        assert received.get(sku, 0) <= balances.get(sku, 0) <= perhaps[sku], sku
