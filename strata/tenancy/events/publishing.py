"""JSON Schemas of events, for whoever reads them elsewhere, and what may change in one that has been published.

Within a version a payload may only gain fields that are not required: who reads it by the old schema, reading over what
it does not know, must still understand it. Anything else is a new version, beside the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from strata.tenancy.events.types import Event, EventKind

Schema = dict[str, Any]
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_NOT_COMPARED = frozenset({"$schema", "$id", "title", "description", "properties", "required", "$defs", "$ref"})


def file_name(kind: EventKind) -> str:
    return f"{kind.type}.v{kind.version}.json"


def schemas(events: Iterable[type[Event]]) -> dict[str, Schema]:
    """By file name. Two events of one kind are a mistake in the code."""
    published: dict[str, Schema] = {}
    for event in events:
        name = file_name(event.kind)
        if name in published:
            message = f"two events are {event.kind}"
            raise ValueError(message)
        published[name] = schema(event)
    return published


def schema(event: type[Event]) -> Schema:
    (top,), definitions = msgspec.json.schema_components([event], ref_template="#/$defs/{name}")
    body = definitions.pop(top["$ref"].rpartition("/")[2])
    described = {"$schema": _DRAFT, "$id": file_name(event.kind), **body, "title": str(event.kind)}
    return described | ({"$defs": definitions} if definitions else {})


def rendered(schema: Schema) -> bytes:
    return msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=2) + b"\n"


def incompatibilities(published: Schema, now: Schema) -> list[str]:
    """What a reader of the published schema would stumble over."""
    return list(_differences(published, now, published, now, "payload"))


def _differences(old: Schema, new: Schema, old_root: Schema, new_root: Schema, at: str) -> Iterator[str]:
    old, new = _resolved(old, old_root), _resolved(new, new_root)
    had, has = old.get("properties", {}), new.get("properties", {})
    for name in had:
        if name not in has:
            yield f"{at}.{name} is gone"
        else:
            yield from _differences(had[name], has[name], old_root, new_root, f"{at}.{name}")
    if sorted(old.get("required", [])) != sorted(new.get("required", [])):
        yield f"{at} requires other fields"
    for keyword in sorted((old.keys() | new.keys()) - _NOT_COMPARED):
        yield from _keyword(keyword, old.get(keyword), new.get(keyword), old_root, new_root, at)


def _keyword(
    keyword: str,
    old: Any,  # noqa: ANN401 - a keyword's value can be anything
    new: Any,  # noqa: ANN401 - likewise
    old_root: Schema,
    new_root: Schema,
    at: str,
) -> Iterator[str]:
    match old, new:
        case dict(), dict():
            yield from _differences(old, new, old_root, new_root, f"{at}[]")
        case [dict(), *_], [dict(), *_] if len(old) == len(new):
            for before, after in zip(old, new, strict=True):
                yield from _differences(before, after, old_root, new_root, at)
        case _ if old != new:
            yield f"{at}: {keyword} was {old} and is {new}"
        case _:
            return


def _resolved(schema: Schema, root: Schema) -> Schema:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Schema = root["$defs"][reference.rpartition("/")[2]]
    return found
