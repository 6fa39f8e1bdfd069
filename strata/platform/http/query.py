"""Query parameters that a route does not have are refused: one misspelt filter would answer with everything."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from litestar import Request
from litestar.handlers import HTTPRouteHandler

from strata.platform.errors import BadRequestError


class UnknownParametersError(BadRequestError):
    code = "unknown-parameters"
    title = "No such query parameter"

    def __init__(self, unknown: list[str], known: frozenset[str]) -> None:
        there_are = f"choose from {', '.join(sorted(known))}" if known else "this address takes none"
        named = ", ".join(f"«{name[:64]}»" for name in unknown[:5])
        super().__init__(
            f"There is no query parameter {named} here; {there_are}.",
            extra={"unknown": unknown[:5], "parameters": sorted(known)},
        )


_OPEN = "open_parameters"


def open_parameters(*prefixes: str) -> dict[str, tuple[str, ...]]:
    """For the `opt` of a route that judges parameters which begin like this by itself."""
    return {_OPEN: prefixes}


_known: dict[HTTPRouteHandler, frozenset[str]] = {}


async def refuse_unknown_parameters(request: Request[Any, Any, Any]) -> None:
    """For a layer's `before_request`."""
    query = request.scope["query_string"]
    if not query:
        return
    handler = request.route_handler
    known = _known.get(handler)
    if known is None:
        model = handler.create_kwargs_model(path_parameters=request.path_params)
        known = _known[handler] = frozenset(parameter.field_alias for parameter in model.expected_query_params)
    names = {name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)}
    if prefixes := handler.opt.get(_OPEN):
        names = {name for name in names if not name.startswith(prefixes)}
    if not names <= known:
        raise UnknownParametersError(sorted(names - known), known)
