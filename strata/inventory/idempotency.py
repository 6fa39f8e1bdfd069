"""Idempotency-Key: the first answer to a request is kept, and given again to whoever repeats it.

One key, one request, whatever the route: the hash covers method, path and the decoded body, so white space and the
order of members make no difference. What is refused is not kept; a repeated request is then judged anew. Movements
claim and answer inside their own database function; everything else uses `once`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, TypeVar

import msgspec
from litestar.params import HeaderParameter
from sqlalchemy import LargeBinary, SmallInteger, Text, bindparam, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from strata.platform.errors import BadRequestError, ConflictError
from strata.tenancy.scoping import TenantModel
from strata.tenancy.session import TenantSession

T = TypeVar("T", bound=msgspec.Struct)

IdempotencyKeyHeader = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        required=False,
        description="Repeat the request with the same key as often as you like: it takes effect once.",
    ),
]
_LONGEST_KEY = 255
REPLAYED = {"Idempotency-Replayed": "true"}
"""The header of an answer that was kept."""


class IdempotencyRow(TenantModel):
    __tablename__ = "idempotency"

    key: Mapped[str]
    request_hash: Mapped[bytes]
    status: Mapped[int | None] = mapped_column(SmallInteger)
    response: Mapped[object | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class BadIdempotencyKeyError(BadRequestError):
    code = "bad-idempotency-key"
    title = "Idempotency-Key not usable"

    def __init__(self) -> None:
        super().__init__(
            "Idempotency-Key takes 1 to 255 visible ASCII characters; a UUID made for this request is best."
        )


class IdempotencyConflictError(ConflictError):
    code = "idempotency-conflict"
    title = "Key used before"

    def __init__(self, key: str) -> None:
        super().__init__("This Idempotency-Key came with another request before; make a new key for a new request.")
        self.key = key


class RequestKey(msgspec.Struct, frozen=True):
    """A client's key and what it came with."""

    key: str
    request_hash: bytes


def request_key(header: str | None, operation: str, body: msgspec.Struct | None) -> RequestKey | None:
    """`operation`: method and path, such as «POST /movements»."""
    if header is None:
        return None
    if not 1 <= len(header) <= _LONGEST_KEY or not header.isascii() or not header.isprintable():
        raise BadIdempotencyKeyError
    return RequestKey(header, hashlib.sha256(operation.encode() + b"\n" + msgspec.json.encode(body)).digest())


_CLAIM = text(
    """
    INSERT INTO idempotency (tenant_id, key, request_hash) VALUES (:tenant, :key, :request_hash)
    ON CONFLICT (tenant_id, key) DO NOTHING
    RETURNING true
    """
)
_STORED = text(
    "SELECT request_hash, CAST(response AS text) AS response FROM idempotency WHERE tenant_id = :tenant AND key = :key"
)
_ANSWER = text(
    """
    UPDATE idempotency SET status = 201, response = CAST(:response AS jsonb)
    WHERE tenant_id = :tenant AND key = :key
    """
).bindparams(bindparam("response", type_=Text))
_CLAIM = _CLAIM.bindparams(bindparam("request_hash", type_=LargeBinary))


async def once(
    session: TenantSession, key: RequestKey | None, answer: type[T], work: Callable[[], Awaitable[T]]
) -> tuple[T, bool]:
    """The answer of `work`, or the one kept under the key, and whether it was kept.

    The claim comes first: a second request with the same key waits there until the first has committed or failed.
    """
    if key is None:
        return await work(), False
    tenant = session.info["tenant_id"]
    claim = {"tenant": tenant, "key": key.key, "request_hash": key.request_hash}
    if await session.scalar(_CLAIM, claim):
        result = await work()
        response = msgspec.json.encode(result).decode()
        await session.execute(_ANSWER, {"tenant": tenant, "key": key.key, "response": response})
        return result, False
    stored = (await session.execute(_STORED, {"tenant": tenant, "key": key.key})).one()
    if bytes(stored.request_hash) != key.request_hash:
        raise IdempotencyConflictError(key.key)
    return msgspec.json.decode(stored.response, type=answer), True
