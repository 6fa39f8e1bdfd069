"""What every benchmark of `python -m tests.bench` is, and what it may stand on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from tests.bench import parties, plain_side
from tests.bench.ground import Ground, ground
from tests.bench.load import LoadGenerator
from tests.bench.parties import Party, Sides
from tests.bench.peer_environment import PeerEnvironment
from tests.bench.tables import Table

P = TypeVar("P", bound=msgspec.Struct)
Results = dict[str, Any]
"""As msgspec writes it to JSON and reads it back: `tables` is given what was read back."""


class Stand:
    """Servers, load and parties, each made when a benchmark first asks for it, all of it ended with the block."""

    def __init__(self, *, durable: bool = True) -> None:
        self._durable = durable
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @cached_property
    def ground(self) -> Ground:
        return self._stack.enter_context(ground(durable=self._durable))

    @cached_property
    def load(self) -> LoadGenerator:
        return self._stack.enter_context(LoadGenerator())

    @cached_property
    def peers(self) -> PeerEnvironment:
        return PeerEnvironment()

    @property
    def sides(self) -> Sides:
        return self._prepared[0]

    @property
    def parties(self) -> Sequence[Party]:
        """Strata on each tier and the plain application, served and stocked."""
        return self._prepared[1]

    @property
    def strata_parties(self) -> Sequence[Party]:
        return [party for party in self.parties if party.name not in plain_side.VARIANTS]

    @cached_property
    def _prepared(self) -> tuple[Sides, list[Party]]:
        return parties.prepare(self.ground, self.load)


class Benchmark(msgspec.Struct, Generic[P], frozen=True):
    name: str
    run: Callable[[Stand, P], Results]
    tables: Callable[[Results], Sequence[Table]]
    plan: P
    quick: P
    peers: bool = False
    """Whether it needs the environment of the programs that Strata is compared with."""
    shared_stand: bool = False
    """Those that ask the same served parties stand together; the others leave nothing behind for the next."""
    durable: bool = True
    """False where the disk is not what is measured, and would take most of the time."""
    only_named: bool = False
    """True for one that takes so long that a run of all leaves it out."""
