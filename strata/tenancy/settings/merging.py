"""JSON Merge Patch (RFC 7396), and its inverse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Document = dict[str, Any]


def merged(document: object, patch: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Section 2 of the RFC: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result: Document = dict(document) if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Document:
    """The patch that makes `after` of `before`, member by member. Neither holds a null: a patch cannot say one.

    Of an object that is gone it takes away the members it had: applied elsewhere, it leaves others' alone.
    """
    patch: Document = {
        name: difference(value, {}) if isinstance(value, dict) and value else None
        for name, value in before.items()
        if name not in after
    }
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := difference(old, value):
                patch[name] = inner
        elif value != old or name not in before:
            patch[name] = value
    return patch


def without_empty(document: Document) -> Document:
    """An empty object says nothing, and is not kept."""
    kept = {name: without_empty(value) if isinstance(value, dict) else value for name, value in document.items()}
    return {name: value for name, value in kept.items() if value != {}}


def leaves(document: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every member that is no object, with its path; an empty object is a leaf."""
    for name, value in document.items():
        here = (*path, name)
        if isinstance(value, dict) and value:
            yield from leaves(value, here)
        else:
            yield here, value


def pointer(path: tuple[str | int, ...]) -> str:
    """RFC 6901."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
