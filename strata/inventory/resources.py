"""What the routes of one kind of thing have in common: selected fields, entity tags, creation that happens once.

The routes spell out their own parameters, which the API's description shows; what they answer is written here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, cast

import msgspec
from litestar import Response

from strata.inventory.idempotency import REPLAYED, once, request_key
from strata.inventory.request_parameters import API_PREFIX
from strata.platform.etags import content_etag, etag, is_unchanged
from strata.platform.fields import FieldSelection
from strata.platform.paging import Page
from strata.tenancy.context import TenantContext
from strata.tenancy.session import Tenants, TenantSession

T = TypeVar("T", bound=msgspec.Struct)

_encode = msgspec.json.Encoder().encode
_JSON = "application/json"


class Resource(Generic[T]):
    """`collection`: the last part of its address under the API."""

    def __init__(self, collection: str, item: type[T]) -> None:
        self._collection = collection
        self._item = item
        self._fields = FieldSelection(item)
        self._versioned = "version" in item.__struct_fields__

    def read(self, item: T, fields: str | None, if_none_match: str | None) -> Response[T]:
        body = _encode(item if fields is None else self._fields.of(item, fields))
        return _conditional(body, self._tag(item, body), if_none_match)

    def page(self, page: Page[T], if_none_match: str | None) -> Response[Page[T]]:
        body = _encode(page)
        return _conditional(body, content_etag(body), if_none_match)

    async def create(
        self,
        context: TenantContext,
        tenants: Tenants,
        data: msgspec.Struct,
        idempotency_key: str | None,
        work: Callable[[TenantSession], Awaitable[T]],
    ) -> Response[T]:
        """In a transaction of its own; the same key and data again answer the same and create nothing."""
        key = request_key(idempotency_key, f"POST /{self._collection}", data)
        async with tenants.transaction(context) as session:
            item, replayed = await once(session, key, self._item, lambda: work(session))
        headers = {"Location": f"{API_PREFIX}/{self._collection}/{cast('Any', item).id}"}
        return self.written(item, status=201, headers={**headers, **(REPLAYED if replayed else {})})

    def written(self, item: T, *, status: int = 200, headers: dict[str, str] | None = None) -> Response[T]:
        body = _encode(item)
        return _answer(body, status, {"ETag": self._tag(item, body), **(headers or {})})

    def _tag(self, item: T, body: bytes) -> str:
        # A version is a strong tag, good for If-Match too, and the same whichever fields were selected.
        return etag(cast("Any", item).version) if self._versioned else content_etag(body)


def _conditional(body: bytes, tag: str, if_none_match: str | None) -> Response[Any]:
    if if_none_match is not None and is_unchanged(if_none_match, tag):
        return _answer(b"", 304, {"ETag": tag})
    return _answer(body, 200, {"ETag": tag})


def _answer(body: bytes, status: int, headers: dict[str, str]) -> Response[Any]:
    """Encoded already, once, for the tag and for the wire; what the routes declare is what is inside."""
    return Response(body, media_type=_JSON, status_code=status, headers=headers)
