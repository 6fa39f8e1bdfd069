"""How many connections to dedicated cells a process holds open, over all of them together."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from strata.tenancy.cell.admission import CellBusyError


class Budget:
    """Whoever opens a connection takes from it. When it is spent, the connection that has lain idle longest is closed."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = 0
        self._idle: OrderedDict[object, Callable[[], None]] = OrderedDict()
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def open(self) -> int:
        return self._open

    def try_take(self) -> bool:
        """Without waiting, and at nobody's expense."""
        free = self._open < self._limit and not self._waiting
        self._open += free
        return free

    async def take(self, wait_s: float) -> None:
        """CellBusyError when nobody has given one back in time."""
        if self._open < self._limit and not self._waiting:
            self._open += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if self._idle:
            next(iter(self._idle.values()))()
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                detail = "All connections that this server may hold are busy."
                raise CellBusyError(detail) from None
            raise

    def give(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                # Handed on: the count stays.
                turn.set_result(None)
                return
        self._open -= 1

    def idle(self, connection: object, drop: Callable[[], None]) -> None:
        """It may be dropped for another's sake from now on."""
        if self._waiting:
            drop()
        else:
            self._idle[connection] = drop

    def busy(self, connection: object) -> None:
        self._idle.pop(connection, None)
