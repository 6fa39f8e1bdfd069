"""The API's description as a page of our own: no script, nothing fetched from elsewhere, so it works without the internet."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import msgspec
from litestar import Request
from litestar.openapi.plugins import OpenAPIRenderPlugin

Document = dict[str, Any]
_METHODS = ("get", "post", "put", "patch", "delete")
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--accent:#1f5f8b}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1.5rem}
h1{margin:0 0 .25rem}h2{margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}
details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0}
summary{padding:.5rem .75rem;cursor:pointer}details>div{padding:0 .75rem .75rem}
code,pre{font:13px/1.45 ui-monospace,monospace}pre{background:var(--soft);padding:.75rem;border-radius:6px;overflow:auto}
.m{display:inline-block;min-width:4rem;font-weight:700;color:var(--accent);text-transform:uppercase}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25rem .5rem;border-top:1px solid var(--line);vertical-align:top}
.q{opacity:.75}
"""


class DescriptionPage(OpenAPIRenderPlugin):
    def __init__(self, *, path: str, json_path: str) -> None:
        super().__init__(path=path)
        self._json_path = json_path
        self._page: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: Document) -> bytes:
        if self._page is None:
            # Through JSON, so that what the page shows is exactly what the document says.
            document = msgspec.json.decode(self.render_json(request, openapi_schema))
            self._page = _page(document, self._json_path).encode()
        return self._page


def _page(document: Document, json_path: str) -> str:
    info = document["info"]
    groups: dict[str, list[str]] = {}
    for path, item in sorted(document.get("paths", {}).items()):
        for method in _METHODS:
            if method in item:
                operation = item[method]
                group = (operation.get("tags") or ["Other"])[0]
                groups.setdefault(group, []).append(_operation(path, method, operation, document))
    body = "".join(f"<h2>{escape(group)}</h2>{''.join(parts)}" for group, parts in sorted(groups.items()))
    schemas = "".join(
        f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary><div>{_fields(schema)}</div></details>'
        for name, schema in sorted(document.get("components", {}).get("schemas", {}).items())
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])}</h1><p>{escape(info.get('description') or '')}</p>"
        f'<p class="q">Version {escape(info["version"])} · <a href="{escape(json_path)}">openapi.json</a></p>'
        f"{body}<h2>Schemas</h2>{schemas}</body></html>"
    )


def _operation(path: str, method: str, operation: Document, document: Document) -> str:
    parts = [
        f"<p>{escape(operation.get('description') or '')}</p>",
        _parameters(operation.get("parameters", [])),
        _bodies("Request", operation.get("requestBody", {}).get("content", {}), document),
    ]
    for status, response in sorted(operation.get("responses", {}).items()):
        said = escape(response.get("description", ""))
        parts.append(f"<h4>{escape(status)} <span class='q'>{said}</span></h4>")
        parts.append(_bodies("", response.get("content", {}), document))
    summary = escape(operation.get("summary") or "")
    return (
        f'<details><summary><span class="m">{method}</span> <code>{escape(path)}</code> <span class="q">{summary}</span></summary>'
        f"<div>{''.join(parts)}</div></details>"
    )


def _parameters(parameters: Iterable[Document]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{escape(parameter['in'])}</td>"
        f"<td>{_type(parameter.get('schema', {}))}{' (required)' if parameter.get('required') else ''}</td>"
        f"<td>{escape(parameter.get('description') or '')}</td></tr>"
        for parameter in parameters
    )
    return f"<table><tr><th>Parameter<th>In<th>Type<th>Meaning</tr>{rows}</table>" if rows else ""


def _bodies(title: str, content: Document, document: Document) -> str:
    parts = [f"<h4>{title}</h4>" if title and content else ""]
    for media_type, body in content.items():
        schema = body.get("schema", {})
        parts.append(f"<p><code>{escape(media_type)}</code> {_type(schema)}</p>")
        example = _example(body, schema, document)
        if example is not None:
            text = msgspec.json.format(msgspec.json.encode(example), indent=2).decode()
            parts.append(f"<pre>{escape(text)}</pre>")
    return "".join(parts)


def _example(body: Document, schema: Document, document: Document) -> object | None:
    for named in body.get("examples", {}).values():
        return named.get("value")  # type: ignore[no-any-return]
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    resolved = document.get("components", {}).get("schemas", {}).get(name, schema)
    examples = resolved.get("examples") or [body.get("example", resolved.get("example"))]
    return examples[0]  # type: ignore[no-any-return]


def _fields(schema: Document) -> str:
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{_type(field)}{' (required)' if name in required else ''}</td>"
        f"<td>{escape(field.get('description') or '')}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    return f"<table><tr><th>Field<th>Type<th>Meaning</tr>{rows}</table>" if rows else f"<p>{_type(schema)}</p>"


def _type(schema: Document) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    for combined in ("oneOf", "anyOf"):
        if combined in schema:
            return " or ".join(_type(part) for part in schema[combined])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return " | ".join(escape(str(value)) for value in schema["enum"])
    kind = schema.get("type", "anything")
    return escape(" or ".join(kind) if isinstance(kind, list) else str(kind))
