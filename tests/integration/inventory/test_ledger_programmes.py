"""Hypothesis writes programmes of movements; a model in memory says what must come of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from strata.inventory.idempotency import RequestKey
from strata.inventory.locations.models import Bin
from strata.inventory.movements.errors import AlreadyReversedError, MovementCancelsOutError, StockShortageError
from strata.inventory.movements.models import MovementKind
from strata.inventory.movements.outcomes import PostedMovement
from strata.inventory.movements.posting import post_movement, reverse_movement
from strata.inventory.movements.schemas import LineIn, MovementIn, ReversalIn
from strata.inventory.products.models import Product
from strata.inventory.stock.models import StockBalance
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.inventory import stocked
from tests.builders.platform import Tenantry, admin_of
from tests.builders.rows import fingerprint
from tests.integration.inventory.test_posting_at_once import assert_sound

SKUS = ("S-0", "S-1")
BINS = ("B-0", "B-1", "B-2")
Key = tuple[str, str, str]
T = TypeVar("T")

quantities = st.integers(1, 20)
places = st.tuples(st.sampled_from(SKUS), st.sampled_from(BINS), st.sampled_from(("", "L")))
lines = st.lists(st.tuples(places, quantities), min_size=1, max_size=4)
transfers = st.lists(st.tuples(places, quantities, st.sampled_from(BINS)), min_size=1, max_size=4)


class Warehouse(RuleBasedStateMachine):
    """The rules act on the database and on `expected`; every step compares the two."""

    runtime: ClassVar[Runtime]
    context: ClassVar[TenantContext]
    loop: ClassVar[asyncio.AbstractEventLoop]
    started: ClassVar[int] = 0

    movements = Bundle("movements")
    keyed = Bundle("keyed")

    def __init__(self) -> None:
        super().__init__()
        type(self).started += 1
        self.expected: dict[Key, int] = {}
        self.keys = 0
        self.last = UUID(int=0)
        # Every programme has goods of its own in the one tenant: a name in front keeps them apart.
        self.prefix = f"r{self.started}-"
        self.wait(stocked(self.runtime, self.context, skus=len(SKUS), bins=len(BINS), prefix=self.prefix))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        # Hypothesis runs in a thread; the connections belong to the tests' loop.
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def line(self, place: Key, quantity: int, to_bin: str | None = None) -> LineIn:
        sku, code, batch = place
        return LineIn(self.prefix + sku, self.prefix + code, quantity, self.prefix + to_bin if to_bin else None, batch)

    def post(self, kind: MovementKind, lines: list[LineIn], key: RequestKey | None = None) -> PostedMovement:
        async def post() -> PostedMovement:
            async with self.runtime.tenants.transaction(self.context) as session:
                posted, _ = await post_movement(session, MovementIn(kind, lines), actor="programme", key=key)
                return posted

        return self.wait(post())

    def expect(self, deltas: dict[Key, int], act: Callable[[], PostedMovement]) -> dict[Key, int] | None:
        """Whether the movement must go through follows from the model alone; what it changed, if it did."""
        changed = {place: delta for place, delta in deltas.items() if delta}
        if any(self.expected.get(place, 0) + delta < 0 for place, delta in changed.items()):
            with pytest.raises(StockShortageError):
                act()
            return None
        if not changed:
            with pytest.raises(MovementCancelsOutError):
                act()
            return None
        posted = act()
        for place, delta in changed.items():
            self.expected[place] = self.expected.get(place, 0) + delta
        assert {self.place(line.sku, line.bin, line.batch): line.quantity for line in posted.lines} == changed
        assert all(line.on_hand == self.expected[self.place(line.sku, line.bin, line.batch)] for line in posted.lines)
        self.last = posted.id
        return changed

    def place(self, sku: str, code: str, batch: str) -> Key:
        return sku.removeprefix(self.prefix), code.removeprefix(self.prefix), batch

    @rule(target=movements, lines=lines, sign=st.sampled_from((1, -1)))
    def receive_or_pick(self, lines: list[tuple[Key, int]], sign: int) -> tuple[UUID, dict[Key, int]] | None:
        kind = MovementKind.RECEIVE if sign > 0 else MovementKind.PICK
        sums = _sums((place, sign * quantity) for place, quantity in lines)
        done = self.expect(sums, lambda: self.post(kind, [self.line(*each) for each in lines]))
        return (self.last, done) if done else None

    @rule(target=movements, lines=transfers)
    def transfer(self, lines: list[tuple[Key, int, str]]) -> tuple[UUID, dict[Key, int]] | None:
        moves = [(place, quantity, to) for place, quantity, to in lines if to != place[1]]
        if not moves:
            return None
        sums = _sums(
            delta
            for (sku, code, batch), quantity, to in moves
            for delta in (((sku, code, batch), -quantity), ((sku, to, batch), quantity))
        )
        done = self.expect(sums, lambda: self.post(MovementKind.TRANSFER, [self.line(*each) for each in moves]))
        return (self.last, done) if done else None

    @rule(place=places, quantity=st.integers(-20, 20).filter(bool))
    def adjust(self, place: Key, quantity: int) -> None:
        self.expect({place: quantity}, lambda: self.post(MovementKind.ADJUST, [self.line(place, quantity)]))

    @rule(place=places, found=st.integers(0, 30))
    def count(self, place: Key, found: int) -> None:
        posted = self.post(MovementKind.COUNT, [self.line(place, found)])
        delta = found - self.expected.get(place, 0)
        assert [line.quantity for line in posted.lines] == ([delta] if delta else [])
        if delta:
            self.expected[place] = found

    @rule(moved=consumes(movements))
    def reverse(self, moved: tuple[UUID, dict[Key, int]] | None) -> None:
        if moved is None:
            return
        movement_id, deltas = moved

        async def act() -> PostedMovement:
            async with self.runtime.tenants.transaction(self.context) as session:
                posted, _ = await reverse_movement(session, movement_id, ReversalIn(), actor="programme")
                return posted

        if self.expect({place: -delta for place, delta in deltas.items()}, lambda: self.wait(act())):
            with pytest.raises(AlreadyReversedError):
                self.wait(act())

    @rule(target=keyed, place=places, quantity=quantities)
    def receive_under_a_key(self, place: Key, quantity: int) -> tuple[RequestKey, Key, int, PostedMovement]:
        self.keys += 1
        key = RequestKey(f"{self.prefix}{self.keys}", b"hash")
        posted = self.post(MovementKind.RECEIVE, [self.line(place, quantity)], key)
        self.expected[place] = self.expected.get(place, 0) + quantity
        return key, place, quantity, posted

    @rule(done=keyed)
    def replay(self, done: tuple[RequestKey, Key, int, PostedMovement]) -> None:
        key, place, quantity, posted = done
        assert self.post(MovementKind.RECEIVE, [self.line(place, quantity)], key) == posted

    @invariant()
    def balances_are_as_expected(self) -> None:
        async def read() -> dict[Key, int]:
            statement = (
                select(Product.sku, Bin.code, StockBalance.batch, StockBalance.on_hand)
                .join(Product, Product.id == StockBalance.product_id)
                .join(Bin, Bin.id == StockBalance.bin_id)
                .where(Product.sku.startswith(self.prefix))
            )
            async with self.runtime.tenants.reading(self.context) as session:
                rows = (await session.execute(statement)).all()
            return {self.place(sku, code, batch): on_hand for sku, code, batch, on_hand in rows}

        assert self.wait(read()) == self.expected


def _sums(deltas: Any) -> dict[Key, int]:  # noqa: ANN401 - pairs of key and number
    sums: dict[Key, int] = {}
    for place, delta in deltas:
        sums[place] = sums.get(place, 0) + delta
    return sums


@pytest.mark.parametrize("tier", [pytest.param(Tier.SHARED, marks=pytest.mark.slow), Tier.SCHEMA])
async def test_every_programme_adds_up_and_touches_nobody_else(
    runtime: Runtime, tenant_on: Tenantry, tier: Tier
) -> None:
    context, neighbour = await tenant_on(tier), await tenant_on(tier)
    await stocked(runtime, neighbour, skus=2, bins=3, on_hand=7)
    schema = neighbour.placement.schema_name
    async with admin_of(runtime, neighbour.placement.cell) as admin:
        before = await fingerprint(admin, schema, neighbour.id)
    Warehouse.runtime, Warehouse.context, Warehouse.loop = runtime, context, asyncio.get_running_loop()
    limits = settings(max_examples=15, stateful_step_count=25, deadline=None)
    await asyncio.to_thread(run_state_machine_as_test, Warehouse, settings=limits)
    await assert_sound(runtime, context)
    async with admin_of(runtime, neighbour.placement.cell) as admin:
        assert await fingerprint(admin, schema, neighbour.id) == before
