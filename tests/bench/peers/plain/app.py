"""The same product for one organisation: Litestar, SQLAlchemy and asyncpg with no word of tenancy.

Handlers, schemas and database functions are Strata's own (the functions: see schema.py); sessions are SQLAlchemy's
as its documentation shows them. Two variants: `bare` checks nothing and answers; `edge` has what any service in
production has and Strata's edge too (bearer token, permission, request id, problem documents, security headers,
metrics), so that what is left of the difference is the tenancy.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast
from uuid import UUID

import jwt
import msgspec
import uvloop
from litestar import Controller, Litestar, Response, Router, get, post
from litestar.connection import ASGIConnection
from litestar.di import Provide
from litestar.handlers import BaseRouteHandler
from litestar.params import Body, Parameter
from litestar.types import ASGIApp, LifeSpanReceive, LifeSpanScope, LifeSpanSend, Receive, Scope, Send
from sqlalchemy import BigInteger, DateTime, LargeBinary, Text, bindparam, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from strata.inventory.idempotency import REPLAYED, IdempotencyKeyHeader, RequestKey, request_key
from strata.inventory.movements.outcomes import Outcome, Posted, PostedMovement, Replayed
from strata.inventory.movements.schemas import MovementDocument, MovementIn, check_lines
from strata.inventory.products.errors import ProductNotFoundError
from strata.inventory.products.models import Attributes
from strata.inventory.products.schemas import ProductOut
from strata.inventory.request_parameters import API_PREFIX, IfNoneMatchHeader
from strata.platform.errors import ForbiddenError, UnauthenticatedError
from strata.platform.etags import etag, is_unchanged
from strata.platform.http.edge import Edge
from strata.platform.http.problems import ProblemResponses
from strata.platform.ids import new_id
from strata.platform.metrics import HttpMetrics
from tests.bench.serving import serve

READ, WRITE = "products:read", "movements:write"
Sessions = async_sessionmaker[AsyncSession]


class Model(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: DateTime(timezone=True), str: Text, int: BigInteger}


class Product(Model):
    __tablename__ = "product"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    sku: Mapped[str]
    name: Mapped[str]
    barcode: Mapped[str | None]
    unit: Mapped[str]
    weight_grams: Mapped[int | None]
    attributes: Mapped[Attributes] = mapped_column(JSONB)
    custom: Mapped[dict[str, Any]] = mapped_column(JSONB)
    expiry_policy: Mapped[str]
    active: Mapped[bool]
    version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


_BY_SKU = select(Product).where(Product.sku == bindparam("sku"))
_POST = text("SELECT CAST(post_movement(:actor, CAST(:movement AS jsonb), :key, :request_hash) AS text)").bindparams(
    bindparam("actor", type_=Text),
    bindparam("movement", type_=Text),
    bindparam("key", type_=Text),
    bindparam("request_hash", type_=LargeBinary),
)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Outcome).decode


class Claims(msgspec.Struct, frozen=True):
    sub: str
    permissions: tuple[str, ...]


class ProductController(Controller):
    path = "/products"

    @get("/by-sku/{sku:str}", opt={"permission": READ})
    async def get_by_sku(
        self,
        sessions: Sessions,
        sku: Annotated[str, Parameter(max_length=64, pattern=r"^[^\x00]*$")],
        if_none_match: IfNoneMatchHeader = None,
    ) -> Response[ProductOut]:
        async with sessions() as session, session.begin():
            product = await session.scalar(_BY_SKU, {"sku": sku})
            if product is None:
                raise ProductNotFoundError(sku)
            out = ProductOut(
                product.id,
                product.sku,
                product.name,
                product.barcode,
                product.unit,
                product.weight_grams,
                product.attributes,
                product.custom,
                product.expiry_policy,
                product.active,
                product.version,
                product.created_at,
                product.updated_at,
            )
        if is_unchanged(if_none_match, etag(out.version)):
            return Response(None, status_code=304, headers={"ETag": etag(out.version)})  # type: ignore[arg-type]
        return Response(out, headers={"ETag": etag(out.version)})


class MovementController(Controller):
    path = "/movements"

    @post("/", opt={"permission": WRITE})
    async def post_movement(
        self,
        sessions: Sessions,
        claims: Claims,
        data: Annotated[MovementIn, Body()],
        idempotency_key: IdempotencyKeyHeader = None,
    ) -> Response[PostedMovement]:
        check_lines(data)
        key = request_key(idempotency_key, "POST /movements", data)
        async with sessions() as session, session.begin():
            movement, replayed = await _post_movement(session, data, actor=claims.sub, key=key)
        headers = {"Location": f"{API_PREFIX}/movements/{movement.id}"}
        if replayed:
            headers |= REPLAYED
        return Response(movement, status_code=201, headers=headers)


async def _post_movement(
    session: AsyncSession, movement: MovementIn, *, actor: str, key: RequestKey | None
) -> tuple[PostedMovement, bool]:
    document = MovementDocument(
        new_id(),
        movement.kind,
        movement.lines,
        movement.reference,
        movement.reason,
        movement.note,
        movement.occurred_at,
    )
    answer = await session.scalar(
        _POST,
        {
            "actor": actor,
            "movement": _encode(document).decode(),
            "key": key.key if key else None,
            "request_hash": key.request_hash if key else None,
        },
    )
    match _decode(answer):
        case Posted(posted):
            return posted, False
        case Replayed(posted):
            return posted, True
        case other:
            raise ValueError(other)


class TokenCheck:
    """Bearer tokens, ES256; the signature of each is verified once, as Strata does it."""

    def __init__(self, app: ASGIApp, public_key: str) -> None:
        self._app = app
        self._public_key = public_key
        self._verified: dict[bytes, Claims] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["claims"] = next(
            (self._claims(value) for name, value in scope["headers"] if name == b"authorization"), None
        )
        await self._app(scope, receive, send)

    def _claims(self, value: bytes) -> Claims:
        known = self._verified.get(value)
        if known is None:
            payload = jwt.decode(value.removeprefix(b"Bearer "), self._public_key, algorithms=["ES256"])
            known = self._verified[value] = msgspec.convert(payload, Claims)
        return known


async def authorise(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    claims: Claims | None = connection.scope["state"]["claims"]
    if claims is None:
        raise UnauthenticatedError("Send an access token.")
    if handler.opt["permission"] not in claims.permissions:
        raise ForbiddenError("The token lacks the permission.")


class PlainApp(Litestar):
    edge: ASGIApp | None = None

    async def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> None:
        if scope["type"] == "lifespan" or self.edge is None:
            await super().__call__(scope, receive, send)
        else:
            await self.edge(scope, cast("Receive", receive), cast("Send", send))

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


def create_app(engine: AsyncEngine, public_key: str | None) -> PlainApp:
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    nobody = Claims("bench", ())

    async def provide_sessions() -> Sessions:
        return sessions

    async def provide_claims(scope: Scope) -> Claims:
        claims: Claims = scope["state"]["claims"] if public_key else nobody
        return claims

    # In a chain, as Strata's: Litestar resolves independent dependencies in a task group, which costs more.
    async def provide_sessions_after(claims: Claims) -> Sessions:
        return sessions

    provider: Callable[..., Awaitable[Sessions]] = provide_sessions_after if public_key else provide_sessions
    problems = ProblemResponses()
    app = PlainApp(
        [Router(API_PREFIX, route_handlers=[ProductController, MovementController])],
        dependencies={"claims": Provide(provide_claims), "sessions": Provide(provider)},
        guards=[authorise] if public_key else [],
        exception_handlers=problems.exception_handlers if public_key else {},
        openapi_config=None,
        logging_config=None,
    )
    if public_key:
        app.edge = Edge(
            TokenCheck(app.routed, public_key), problems=problems, metrics=HttpMetrics(), operational={}, https=False
        )
    return app


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--pool", type=int, nargs=2, metavar=("SIZE", "OVERFLOW"), required=True)
    parser.add_argument("--public-key", type=Path)
    given = parser.parse_args()
    engine = create_async_engine(
        given.dsn, pool_size=given.pool[0], max_overflow=given.pool[1], pool_use_lifo=True, hide_parameters=True
    )
    public_key = given.public_key.read_text() if given.public_key else None
    await serve(create_app(engine, public_key), given.port)
    await engine.dispose()


if __name__ == "__main__":
    uvloop.run(main())
