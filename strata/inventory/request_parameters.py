"""Query parameters and headers that several routes take, with the words that describe them."""

from __future__ import annotations

from typing import Annotated

from litestar.params import HeaderParameter, QueryParameter

from strata.platform.paging import MAX_LIMIT

API_PREFIX = "/api/v1"

_NO_NUL = r"^[^\x00]*$"

LimitParameter = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="Items on a page.")]
CursorParameter = Annotated[
    str | None, QueryParameter(required=False, max_length=1024, description="The next_cursor of the page before.")
]
FieldsParameter = Annotated[
    str | None,
    QueryParameter(required=False, max_length=500, description="Names of fields, separated by commas; absent: all."),
]
SearchParameter = Annotated[
    str | None,
    QueryParameter(required=False, max_length=200, pattern=_NO_NUL, description="Part of the code or the name."),
]
TextParameter = Annotated[str | None, QueryParameter(required=False, max_length=200, pattern=_NO_NUL)]
IfMatchHeader = Annotated[
    str | None,
    HeaderParameter(name="If-Match", required=False, description="The ETag you read: 412 if it has changed since."),
]
IfNoneMatchHeader = Annotated[
    str | None,
    HeaderParameter(name="If-None-Match", required=False, description="The ETag you have: 304 if it is still that."),
]
