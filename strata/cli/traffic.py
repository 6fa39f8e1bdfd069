"""strata seed --traffic: goods that keep coming into a tenant, over HTTP, and an account of every one of them.

What was acknowledged is held against the database at the end: each movement bears a reference of its own, so one that is
lost or doubled is seen by name.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import Mapping

import msgspec
from sqlalchemy import text

from strata.cli.output import print_json, print_line
from strata.identity.roles import Role
from strata.identity.tokens import tenant_token
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext

_WRITERS = 8
_READ_EVERY = 4
_TOKEN_LIFETIME_S = 86_400
_ANSWER_WITHIN_S = 60.0
_IDLE_S = 2.0
_LOOK_EVERY_S = 0.1
_CREATED, _OK, _HELD_BACK = 201, 200, 429
_SHOWN = 200
_KEPT = 1000


class TrafficRefusedError(Exception):
    """An answer that is not the expected one."""


class Account(msgspec.Struct):
    """Append-only while traffic lasts."""

    acknowledged: set[str] = msgspec.field(default_factory=set)
    unanswered: set[str] = msgspec.field(default_factory=set)
    """Written perhaps: the connection broke before the answer."""
    failures: list[str] = []
    failed: int = 0
    reads: int = 0
    slowest_ms: float = 0.0
    """Of the second that is under way."""
    slowest_of_all_ms: float = 0.0

    def fail(self, what: str) -> None:
        self.failed += 1
        if len(self.failures) < _KEPT:
            self.failures.append(what)

    def took(self, ms: float) -> None:
        self.slowest_ms = max(self.slowest_ms, ms)
        self.slowest_of_all_ms = max(self.slowest_of_all_ms, ms)


class Verdict(msgspec.Struct, frozen=True):
    acknowledged: int
    reads: int
    failed: int
    slowest_ms: float
    missing: list[str]
    doubled: list[str]
    on_hand: int
    """What the tenant's balances say of the goods that came in; as many as acknowledged, and the unanswered at most."""
    unanswered: int
    failures: list[str]

    @property
    def holds(self) -> bool:
        counted = self.acknowledged <= self.on_hand <= self.acknowledged + self.unanswered
        return counted and not (self.missing or self.doubled or self.failed)


class Connection:
    """Keep-alive HTTP/1.1 to the application, one request at a time."""

    def __init__(self, host: str, port: int, headers: Mapping[str, str]) -> None:
        self._address = (host, port)
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._used_at = 0.0

    async def ask(self, method: str, path: str, document: object, expected: int) -> bytes:
        """The body of the answer; OSError or EOFError when there was none, after which the next one connects anew.

        One that the tenant's plan holds back is sent again when Retry-After says: nothing has been done with it.
        """
        while True:
            status, head, answer = await self._ask_once(method, path, document)
            if status == _HELD_BACK:
                await asyncio.sleep(_number(head, "retry-after"))
                continue
            if status != expected:
                message = f"{method} {path}: {status} {answer[:_SHOWN].decode(errors='replace')}"
                raise TrafficRefusedError(message)
            return answer

    async def _ask_once(self, method: str, path: str, document: object) -> tuple[int, str, bytes]:
        body = b"" if document is None else msgspec.json.encode(document)
        head = f"{method} {path} HTTP/1.1\r\n{self._headers}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        if time.monotonic() - self._used_at > _IDLE_S:
            # A server closes what has been idle for some seconds; a request sent at that moment would count as failed.
            self.close()
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(*self._address)
                reader, writer = self._streams
                writer.write(head.encode() + body)
                await writer.drain()
                answered = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                answer = await reader.readexactly(_number(answered, "content-length"))
        except (OSError, EOFError, asyncio.CancelledError):
            self.close()
            raise
        self._used_at = time.monotonic()
        return int(answered.split(" ", 2)[1]), answered, answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _number(head: str, header: str) -> int:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == header:
            return int(value)
    return 0


class Traffic:
    def __init__(self, runtime: Runtime, context: TenantContext, rate: int) -> None:
        self._runtime = runtime
        self._context = context
        self._rate = rate
        self._run = secrets.token_hex(3).upper()
        self._stopped = asyncio.Event()
        self._begun = 0.0
        self._taken = 0
        self.account = Account()

    def stop(self) -> None:
        self._stopped.set()

    async def run(self) -> None:
        """Until `stop`; requests under way are waited for."""
        first = self._connection()
        bins = msgspec.json.decode(await first.ask("GET", "/api/v1/bins?limit=1", None, _OK))["items"]
        if not bins:
            message = f"{self._context.slug} has no bin to put goods into: strata seed {self._context.slug} makes some"
            raise TrafficRefusedError(message)
        for number in range(_WRITERS):
            sku = self._sku(number)
            await first.ask("POST", "/api/v1/products", {"sku": sku, "name": "Traffic"}, _CREATED)
        first.close()
        self._begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(_WRITERS):
                group.create_task(self._write(number, bins[0]["code"]))

    async def _write(self, number: int, bin_code: str) -> None:
        connection, sku, received, asked = self._connection(), self._sku(number), 0, 0
        while await self._moment(number + asked * _WRITERS):
            asked += 1
            self._taken += 1
            reference = f"TRAFFIC-{self._run}-{self._taken}"
            line = {"sku": sku, "bin": bin_code, "quantity": 1}
            movement = {"kind": "receive", "reference": reference, "lines": [line]}
            if await self._ask(connection, "POST", "/api/v1/movements", movement, _CREATED, reference) is not None:
                self.account.acknowledged.add(reference)
                received += 1
            if asked % _READ_EVERY == 0:
                await self._read(connection, sku, received)
        connection.close()

    async def _read(self, connection: Connection, sku: str, received: int) -> None:
        """What was acknowledged is there at once, in whichever home is read."""
        answer = await self._ask(connection, "GET", f"/api/v1/stock?sku={sku}", None, _OK, None)
        if answer is None:
            return
        self.account.reads += 1
        on_hand = sum(item["on_hand"] for item in msgspec.json.decode(answer)["items"])
        if on_hand < received:
            self.account.fail(f"read {on_hand} of {sku}, of which {received} had been acknowledged")

    async def _ask(
        self, connection: Connection, method: str, path: str, document: object, expected: int, reference: str | None
    ) -> bytes | None:
        begun = time.monotonic()
        try:
            answer = await connection.ask(method, path, document, expected)
        except TrafficRefusedError as error:
            self.account.fail(str(error))
            return None
        except (OSError, EOFError) as error:
            self.account.fail(f"{method} {path}: no answer ({error!r})")
            if reference is not None:
                self.account.unanswered.add(reference)
            return None
        self.account.took((time.monotonic() - begun) * 1000)
        return answer

    async def _moment(self, turn: int) -> bool:
        """Wait for the turn's moment; False when there is to be none. Each writer has every eighth, so none falls idle."""
        while not self._stopped.is_set():
            wait_s = self._begun + turn / self._rate - time.monotonic()
            if wait_s <= 0:
                return True
            await asyncio.sleep(min(wait_s, _LOOK_EVERY_S))
        return False

    async def verdict(self) -> Verdict:
        context = await self._runtime.contexts.fresh(self._context.id)
        prefix = f"TRAFFIC-{self._run}-"
        async with self._runtime.tenants.reading(context) as session:
            found = {row.reference: row.times for row in await session.execute(text(_FOUND), {"prefix": prefix})}
            on_hand = await session.scalar(text(_ON_HAND), {"prefix": prefix})
        account = self.account
        return Verdict(
            acknowledged=len(account.acknowledged),
            reads=account.reads,
            failed=account.failed,
            slowest_ms=round(account.slowest_of_all_ms, 1),
            missing=sorted(account.acknowledged - found.keys())[:_KEPT],
            doubled=sorted(reference for reference, times in found.items() if times != 1)[:_KEPT],
            on_hand=int(on_hand or 0),
            unanswered=len(account.unanswered),
            failures=account.failures,
        )

    def _sku(self, number: int) -> str:
        return f"TRAFFIC-{self._run}-{number}"

    def _connection(self) -> Connection:
        http = self._runtime.settings.http
        token = tenant_token(
            self._runtime.tokens, self._context.id, Role.ADMINISTRATOR, subject="traffic", lifetime_s=_TOKEN_LIFETIME_S
        )
        host = f"{self._context.slug}.{http.base_domain}"
        return Connection(http.host, http.port, {"Host": host, "Authorization": f"Bearer {token}"})


_FOUND = "SELECT reference, count(*) AS times FROM movement WHERE starts_with(reference, :prefix) GROUP BY reference"
_ON_HAND = (
    "SELECT sum(b.on_hand) FROM stock_balance b JOIN product p ON p.id = b.product_id WHERE starts_with(p.sku, :prefix)"
)


async def run_traffic(runtime: Runtime, slug: str, *, rate: int, seconds: int | None, as_json: bool) -> Verdict:
    """Until Ctrl-C or for so many seconds; says every second what has come of it, and verifies at the end."""
    traffic = Traffic(runtime, await runtime.contexts.get_by_slug(slug), rate)
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, traffic.stop)
    if seconds is not None:
        loop.call_later(seconds, traffic.stop)
    telling = asyncio.create_task(_tell(traffic.account, as_json=as_json))
    try:
        await traffic.run()
    finally:
        telling.cancel()
        for sign in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sign)
    return await traffic.verdict()


async def _tell(account: Account, *, as_json: bool) -> None:
    begun = time.monotonic()
    while True:
        await asyncio.sleep(1)
        seconds, slowest_ms, account.slowest_ms = round(time.monotonic() - begun), round(account.slowest_ms, 1), 0.0
        told = {"seconds": seconds, "acknowledged": len(account.acknowledged), "reads": account.reads}
        if as_json:
            print_json({"event": "traffic", **told, "failed": account.failed, "slowest_ms": slowest_ms})
        else:
            print_line(
                f"{seconds:5} s  {len(account.acknowledged):7,} writes acknowledged  {account.reads:6,} reads"
                f"  {account.failed:3} failed  slowest {slowest_ms:6.0f} ms"
            )
