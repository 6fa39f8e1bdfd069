"""trytond with trytond-stock as measured: made by trytond-admin, served by gunicorn, asked by JSON-RPC over HTTP.

A receipt is a stock.move from the supplier's location into storage: created, then done, as any client of Tryton does
it (two calls). Out of storage Tryton wants an assignment, which is its check that the goods are there; its documents
for that are shipments. A pick is an internal shipment from storage to the output zone: created, waiting, assigned,
done (four calls).
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from tests.bench import goods
from tests.bench.ground import Ground, Server
from tests.bench.load import http_request
from tests.bench.peer_environment import PeerEnvironment

DATABASE = "bench_tryton"
NAME = "trytond-stock"
_PASSWORD = "bench-of-one-run"
# As many processes as this machine has cores, and threads that wait for the database: more than Strata is given.
_WORKERS, _THREADS = 2, 4


class Tryton(msgspec.Struct, frozen=True):
    server: Server
    session: str
    company: int
    currency: int
    unit: int
    places: dict[str, int]
    products: dict[str, int]

    def receipt(self, lines: Sequence[tuple[str, int]]) -> list[bytes]:
        moves = [self._move(sku, quantity, "SUP", "STO", priced=True) for sku, quantity in lines]
        return [self._call("stock.move.create", moves), self._call("stock.move.do", "@0@")]

    def pick(self, lines: Sequence[tuple[str, int]]) -> list[bytes]:
        shipment = {
            "company": self.company,
            "from_location": self.places["STO"],
            "to_location": self.places["OUT"],
            "moves": [["create", [self._move(sku, quantity, "STO", "OUT") for sku, quantity in lines]]],
        }
        steps = [self._call(f"stock.shipment.internal.{step}", "@0@") for step in ("wait", "assign_try", "do")]
        return [self._call("stock.shipment.internal.create", [shipment]), *steps]

    def balances(self) -> dict[str, int]:
        """What lies in storage, of every product."""
        request = self._call(
            "product.product.read",
            list(self.products.values()),
            ["quantity"],
            context={"locations": [self.places["STO"]]},
        )
        _, _, body = request.partition(b"\r\n\r\n")
        found = _post(self.server, body, {"Authorization": f"Session {self.session}"})
        quantities = {row["id"]: int(row["quantity"]) for row in found}
        return {sku: quantities[product] for sku, product in self.products.items()}

    def _move(self, sku: str, quantity: int, source: str, target: str, *, priced: bool = False) -> dict[str, Any]:
        move: dict[str, Any] = {
            "product": self.products[sku],
            "quantity": quantity,
            "unit": self.unit,
            "from_location": self.places[source],
            "to_location": self.places[target],
            "company": self.company,
        }
        if priced:
            move |= {"unit_price": {"__class__": "Decimal", "decimal": "1"}, "currency": self.currency}
        return move

    def _call(self, method: str, *parameters: Any, context: dict[str, Any] | None = None) -> bytes:  # noqa: ANN401
        params = [*parameters, {"company": self.company, **(context or {})}]
        # A result of the call before is a list already; its quotes go.
        body = json.dumps({"id": 1, "method": f"model.{method}", "params": params}).replace('"@0@"', "@0@")
        headers = {"Authorization": f"Session {self.session}"}
        return http_request("POST", f"/{DATABASE}/rpc/", "127.0.0.1", headers=headers, body=body.encode())


def prepare(ground: Ground, peers: PeerEnvironment) -> Tryton:
    asyncio.run(ground.make_database(DATABASE))
    config = ground.directory / "trytond.conf"
    config.write_text(f"[database]\nuri = {ground.dsn('')}\n")
    password = ground.directory / "trytond.password"
    password.write_text(_PASSWORD)
    skus = ground.directory / "skus.json"
    skus.write_text(json.dumps(goods.SKUS))
    admin = [peers.program("trytond-admin"), "-c", str(config), "-d", DATABASE]
    admin += ["-u", "stock", "--activate-dependencies", "--email", "bench@example.com", "-p"]
    peers.run(admin, {"TRYTONPASSFILE": str(password)})
    fill = [peers.program("python"), "-m", "tests.bench.peers.tryton.prepare"]
    known = json.loads(peers.run([*fill, "--config", str(config), "--database", DATABASE, "--skus", str(skus)], {}))
    asyncio.run(ground.settle(DATABASE))
    server = _serve(ground, peers, str(config))
    user, session, _ = _post(server, _login())
    token = base64.b64encode(f"admin:{user}:{session}".encode()).decode()
    return Tryton(server=server, session=token, **known)


def _serve(ground: Ground, peers: PeerEnvironment, config: str) -> Server:
    command = [peers.program("gunicorn"), "trytond.application:app", "--bind", "127.0.0.1:{port}"]
    command += [
        "--worker-class",
        "gthread",
        "--workers",
        str(_WORKERS),
        "--threads",
        str(_THREADS),
        "--keep-alive",
        "60",
    ]
    return ground.start(NAME, command, {"TRYTOND_CONFIG": config, "TRYTOND_DATABASE_NAMES": DATABASE})


def _login() -> bytes:
    parameters = ["admin", {"password": _PASSWORD}]
    return json.dumps({"id": 0, "method": "common.db.login", "params": parameters}).encode()


def _post(server: Server, body: bytes, headers: dict[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        headers = {"Content-Type": "application/json", **(headers or {})}
        connection.request("POST", f"/{DATABASE}/rpc/", body, headers)
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return answer["result"]
