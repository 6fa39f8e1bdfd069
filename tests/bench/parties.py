"""Who is compared: Strata on each tier, and the plain application bare and with an edge; what each is asked."""

from __future__ import annotations

import asyncio

import msgspec

from tests.bench import goods, plain_side, strata_side
from tests.bench.ground import Ground, Server
from tests.bench.load import LoadGenerator, http_request
from tests.bench.strata_side import BenchTenant

READ, MOVE = "product by SKU", "two-line movement"
OPENING_STOCK = "opening stock"


class Party(msgspec.Struct, frozen=True):
    """A server and how to ask it."""

    name: str
    server: Server
    host: str
    headers: dict[str, str]

    def define(self, load: LoadGenerator) -> None:
        reads = [self.request("GET", f"/api/v1/products/by-sku/{sku}") for sku in goods.SKUS]
        load.define(self.target(READ), self.server.port, reads)
        load.define(self.target(MOVE), self.server.port, self.movements(goods.two_line_movements()))
        load.define(self.target(OPENING_STOCK), self.server.port, self.movements(goods.opening_stock()))

    def target(self, work: str) -> str:
        return f"{self.name}: {work}"

    def movements(self, bodies: list[bytes]) -> list[bytes]:
        return [self.request("POST", "/api/v1/movements", body) for body in bodies]

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        return http_request(method, path, self.host, headers=self.headers, body=body)


class Sides(msgspec.Struct, frozen=True):
    """Databases made and filled, and the tokens that open them."""

    tenants: list[BenchTenant]
    plain_token: str

    def strata(self, server: Server) -> list[Party]:
        return [Party(f"strata {each.tier}", server, each.host, each.headers) for each in self.tenants]

    def plain(self, name: str, server: Server) -> Party:
        headers = {"Authorization": f"Bearer {self.plain_token}"} if name == plain_side.EDGE else {}
        return Party(name, server, plain_side.HOST, headers)


def prepare(ground: Ground, load: LoadGenerator) -> tuple[Sides, list[Party]]:
    """Everything made, filled, served and stocked, once for all the benchmarks of a run."""

    async def make() -> Sides:
        return Sides(await strata_side.prepare(ground), await plain_side.prepare(ground))

    sides = asyncio.run(make())
    parties = [sides.plain(name, plain_side.serve(ground, name)) for name in plain_side.VARIANTS]
    parties += sides.strata(strata_side.serve(ground))
    for party in parties:
        party.define(load)
        if party.name != plain_side.EDGE:  # the two variants share a database
            load.count(party.target(OPENING_STOCK), len(goods.opening_stock()))
    return sides, parties
