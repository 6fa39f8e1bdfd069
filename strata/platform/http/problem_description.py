"""Problem documents in the API's description: added to the whole of it at once, from what each operation looks like."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from litestar.openapi.spec import (
    Example,
    OpenAPI,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    Schema,
)

from strata.platform.http.problems import MEDIA_TYPE

_SCHEMA = "Problem"
_METHODS = ("get", "post", "put", "patch", "delete")
_ALWAYS = (400, 401, 403, 422, 503)

Examples = dict[tuple[str, str, int], list[Example]]
"""By method, path and status."""


def describe_problems(api: OpenAPI, prefix: str, examples: Examples) -> None:
    api.components.schemas[_SCHEMA] = _problem_schema()
    for path, item in (api.paths or {}).items():
        if not path.startswith(prefix):
            continue
        for method in _METHODS:
            operation: Operation | None = getattr(item, method)
            if operation is None:
                continue
            operation.responses = dict(operation.responses or {})
            for status in _statuses(method, path, operation):
                operation.responses[str(status)] = _response(status, examples.get((method, path, status), []))


def _statuses(method: str, path: str, operation: Operation) -> list[int]:
    headers = {each.name for each in operation.parameters or () if isinstance(each, Parameter)}
    statuses = list(_ALWAYS)
    if "{" in path:
        statuses.append(404)
    if method != "get":
        statuses.append(409)
    if "If-Match" in headers:
        statuses.append(412)
    if operation.request_body is not None:
        statuses += [413, 415]
    return sorted(statuses)


def _response(status: int, examples: list[Example]) -> OpenAPIResponse:
    named: dict[str, Example | Reference] = {str(example.summary): example for example in examples}
    content = OpenAPIMediaType(schema=Reference(ref=f"#/components/schemas/{_SCHEMA}"), examples=named or None)
    return OpenAPIResponse(description=HTTPStatus(status).phrase, content={MEDIA_TYPE: content})


def _problem_schema() -> Schema:
    text, whole = OpenAPIType.STRING, OpenAPIType.INTEGER
    properties: dict[str, Any] = {
        "type": Schema(type=text, description="urn:problem: and the code."),
        "title": Schema(type=text),
        "status": Schema(type=whole),
        "detail": Schema(type=text, description="What happened this time, and what to do next."),
        "code": Schema(type=text, description="Stable: programs decide by it."),
        "request_id": Schema(type=[text, OpenAPIType.NULL], description="Tell it to support."),
    }
    return Schema(
        type=OpenAPIType.OBJECT,
        title=_SCHEMA,
        description="RFC 9457. Some codes bring members of their own, such as errors or shortages.",
        properties=properties,
        required=[*properties],
        additional_properties=True,
    )
