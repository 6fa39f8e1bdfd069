"""Strata's own application in a process of its own; STRATA_* variables say on what."""

from __future__ import annotations

import argparse

import uvloop

from strata.app import StrataApp, create_app
from strata.platform.http.edge import Edge
from strata.platform.http.problems import ProblemResponses
from strata.platform.logging import configure_logging
from strata.platform.metrics import HttpMetrics
from strata.platform.settings import Settings
from strata.platform.web.assets import StaticAssets
from strata.routing.host import Hosts
from strata.routing.middleware import TenantRouting
from strata.routing.resolve import Resolver
from strata.routing.standby_reads import StandbyReads
from strata.runtime import Runtime, open_runtime
from strata.tenancy.cell import engines
from strata.tenancy.usage.meter import UsageMeter
from tests.bench.serving import serve


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--spine", action="store_true", help="without limits and usage")
    given = parser.parse_args()
    configure_logging("app")
    if given.spine:
        _measure_nothing()
    async with open_runtime(Settings()) as runtime:
        app = create_app(runtime)
        await serve(_spine(app, runtime) if given.spine else app, given.port)


def _measure_nothing() -> None:
    engines.watch = lambda engine: None  # type: ignore[attr-defined]  # noqa: ARG005 - as the one it stands for
    UsageMeter.spent = lambda *_arguments: None  # type: ignore[method-assign]


def _spine(app: StrataApp, runtime: Runtime) -> StrataApp:
    """As create_app() stacks it, but for the gate."""
    http = runtime.settings.http
    https = http.public_scheme == "https"
    resolver = Resolver(Hosts(http), runtime.contexts, runtime.tokens)
    app.edge = Edge(
        StaticAssets(TenantRouting(StandbyReads(app.routed, https=https), resolver)),
        problems=ProblemResponses(),
        metrics=HttpMetrics(),
        operational={},
        https=https,
    )
    return app


if __name__ == "__main__":
    uvloop.run(main())
