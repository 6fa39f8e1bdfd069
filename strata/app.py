"""The HTTP application: routes from every domain, one guard, one edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from litestar import Litestar, Request, Response, Router, get
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import (
    ASGIApp,
    ControllerRouterHandler,
    LifeSpanReceive,
    LifeSpanScope,
    LifeSpanSend,
    Receive,
    Scope,
    Send,
)
from openfeature.client import OpenFeatureClient
from sqlalchemy.ext.asyncio import AsyncEngine

import strata
from strata.account import routes as account
from strata.console import routes as console
from strata.identity import pages as identity_pages
from strata.identity.errors import SignInNeededError
from strata.identity.guards import Authorisation
from strata.identity.pages.error_pages import ErrorPages
from strata.identity.permissions import public
from strata.inventory import pages as inventory_pages
from strata.inventory import routes as inventory
from strata.inventory.problem_examples import PROBLEM_EXAMPLES
from strata.inventory.request_parameters import API_PREFIX
from strata.migrator.desk import Desk
from strata.migrator.watching import MoveWatch
from strata.migrator.waves.desk import WaveDesk
from strata.platform.health import Probe, Readiness, database_probe
from strata.platform.http.body import StrictRequest
from strata.platform.http.edge import Edge
from strata.platform.http.openapi_page import DescriptionPage
from strata.platform.http.operational import operational_endpoints
from strata.platform.http.problem_description import describe_problems
from strata.platform.http.problems import ErrorPage, ProblemResponses
from strata.platform.metrics import HttpMetrics
from strata.platform.readings import Readings
from strata.platform.redis_link import RedisLink
from strata.platform.settings import Settings
from strata.platform.tokens import Claims, TokenAuthority
from strata.platform.web.assets import StaticAssets
from strata.routing.gate import TenantGate
from strata.routing.host import Hosts
from strata.routing.middleware import TenantRouting
from strata.routing.resolve import Resolver
from strata.routing.standby_reads import StandbyReads
from strata.tenancy.attestation.statement import Attestation
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.catalog.tenants import TenantDirectory
from strata.tenancy.context import TenantContext
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.entitlements.desk import EntitlementDesk
from strata.tenancy.flags.desk import FlagDesk
from strata.tenancy.flags.holder import Flags
from strata.tenancy.jobs import JobQueue
from strata.tenancy.limits.concurrency import Concurrency
from strata.tenancy.limits.rates import RateLimiter
from strata.tenancy.limits.readings import readings as limit_readings
from strata.tenancy.neighbours.book import NeighbourBook
from strata.tenancy.provisioning.tenants import Provisioning
from strata.tenancy.session import Tenants
from strata.tenancy.settings.book import SettingsBook
from strata.tenancy.usage.book import UsageBook
from strata.tenancy.usage.meter import UsageMeter

OPENAPI_JSON = "/api/v1/openapi.json"
OPENAPI_PAGE = "/api/v1/docs"


class AppRuntime(Protocol):
    """What the application needs of `strata.runtime.Runtime`."""

    @property
    def settings(self) -> Settings: ...
    @property
    def catalog_engine(self) -> AsyncEngine: ...
    @property
    def link(self) -> RedisLink: ...
    @property
    def contexts(self) -> ContextCache: ...
    @property
    def tenants(self) -> Tenants: ...
    @property
    def tokens(self) -> TokenAuthority: ...
    @property
    def directory(self) -> TenantDirectory: ...
    @property
    def entitlements(self) -> EntitlementDesk: ...
    @property
    def flags(self) -> Flags: ...
    @property
    def flag_client(self) -> OpenFeatureClient: ...
    @property
    def flag_desk(self) -> FlagDesk: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def attestation(self) -> Attestation: ...
    @property
    def settings_book(self) -> SettingsBook: ...
    @property
    def provisioning(self) -> Provisioning: ...
    @property
    def jobs(self) -> JobQueue: ...
    @property
    def desk(self) -> Desk: ...
    @property
    def waves(self) -> WaveDesk: ...
    @property
    def rates(self) -> RateLimiter: ...
    @property
    def concurrency(self) -> Concurrency: ...
    @property
    def meter(self) -> UsageMeter: ...
    @property
    def usage(self) -> UsageBook: ...
    @property
    def neighbours(self) -> NeighbourBook: ...


class StrataApp(Litestar):
    """Litestar within the edge and the tenant routing, which must see every request, also one that matches no route."""

    edge: ASGIApp

    async def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
        else:
            await self.edge(scope, cast("Receive", receive), cast("Send", send))

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


def create_app(
    runtime: AppRuntime,
    routes: Sequence[ControllerRouterHandler] | None = None,
    *,
    error_page: ErrorPage | None = None,
) -> StrataApp:
    """`routes`: None for everything Strata has; tests give a few of their own."""
    http = runtime.settings.http
    https = http.public_scheme == "https"
    problems = ProblemResponses(error_page or ErrorPages(https=https))
    metrics = HttpMetrics()
    _ = Readings(metrics.registry, limit_readings(runtime.rates, runtime.concurrency))
    watch = MoveWatch(runtime.catalog_engine, runtime.registry, runtime.settings.migrator)
    app = StrataApp(
        [*(all_routes() if routes is None else routes), _jwks(runtime.tokens), openapi_json],
        dependencies=_dependencies(runtime),
        middleware=[Authorisation],
        exception_handlers=problems.exception_handlers,
        request_class=StrictRequest,
        request_max_body_size=http.max_body_bytes,
        openapi_config=_openapi(),
        logging_config=None,
    )
    describe_problems(app.openapi_schema, API_PREFIX, PROBLEM_EXAMPLES)
    readiness = Readiness(
        required={"catalog": database_probe(runtime.catalog_engine)},
        # Without Redis everything works, slower.
        optional={"redis": _link_probe(runtime.link)},
    )
    app.edge = Edge(
        StaticAssets(
            TenantRouting(
                TenantGate(StandbyReads(app.routed, https=https), runtime.rates, runtime.concurrency, runtime.meter),
                Resolver(Hosts(http), runtime.contexts, runtime.tokens),
            )
        ),
        problems=problems,
        metrics=metrics,
        operational=operational_endpoints(readiness, metrics, watch.exposition),
        https=https,
    )
    return app


def all_routes() -> list[ControllerRouterHandler]:
    return [*inventory.ROUTES, *inventory_pages.ROUTES, *account.ROUTES, *identity_pages.ROUTES, *console.ROUTES]


# Dependencies hang on one another in a chain, though each could be had by itself: Litestar resolves independent ones in a
# task group, which costs 130 µs a request where the chain costs 25.


async def provide_claims(scope: Scope) -> Claims | None:
    claims: Claims | None = scope["state"]["claims"]
    return claims


async def provide_context(scope: Scope, claims: Claims | None) -> TenantContext:  # noqa: ARG001 - the chain
    context: TenantContext | None = scope["state"]["context"]
    if context is None:
        raise SignInNeededError
    return context


def _dependencies(runtime: AppRuntime) -> dict[str, Provide]:
    tenants = runtime.tenants

    async def provide_tenants(context: TenantContext) -> Tenants:  # noqa: ARG001 - the chain
        return tenants

    return {
        "claims": Provide(provide_claims),
        "context": Provide(provide_context),
        "tenants": Provide(provide_tenants),
        # These are for sign-in, accounts and the staff's routes, which are rarely asked for: no chain needed.
        "every_tenant": _lend(tenants),
        "contexts": _lend(runtime.contexts),
        "tokens": _lend(runtime.tokens),
        "http_settings": _lend(runtime.settings.http),
        "catalog_engine": _lend(runtime.catalog_engine),
        "directory": _lend(runtime.directory),
        "entitlements": _lend(runtime.entitlements),
        "flags": _lend(runtime.flags),
        "flag_client": _lend(runtime.flag_client),
        "flag_desk": _lend(runtime.flag_desk),
        "attestation": _lend(runtime.attestation),
        "settings_book": _lend(runtime.settings_book),
        "registry": _lend(runtime.registry),
        "provisioning": _lend(runtime.provisioning),
        "jobs": _lend(runtime.jobs),
        "desk": _lend(runtime.desk),
        "waves": _lend(runtime.waves),
        "usage": _lend(runtime.usage),
        "neighbours": _lend(runtime.neighbours),
    }


def _lend(service: object) -> Provide:
    async def provide() -> object:
        return service

    return Provide(provide)


def _jwks(tokens: TokenAuthority) -> ControllerRouterHandler:
    @get("/.well-known/jwks.json", opt=public(), summary="Keys that verify access tokens", tags=["Tokens"])
    async def jwks() -> Response[dict[str, list[dict[str, str]]]]:
        return Response(tokens.jwks, headers={"Cache-Control": "public, max-age=300"})

    return jwks


@get(OPENAPI_JSON, opt=public(), include_in_schema=False)
async def openapi_json(request: Request[Any, Any, Any]) -> dict[str, Any]:
    return request.app.openapi_schema.to_schema()


def _openapi() -> OpenAPIConfig:
    page = DescriptionPage(path="/", json_path=OPENAPI_JSON)
    return OpenAPIConfig(
        title="Inventory API",
        version=strata.__version__,
        description=(
            "Products, locations, stock and its movements. Send an access token as a bearer token; errors are problem "
            "documents (RFC 9457) whose `code` is stable."
        ),
        components=Components(
            security_schemes={"token": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")}
        ),
        security=[{"token": []}],
        use_handler_docstrings=True,
        render_plugins=[page],
        # A router of our own: the one that Litestar makes names no permission.
        openapi_router=Router(
            OPENAPI_PAGE, route_handlers=[], opt=public(), include_in_schema=False, dto=None, return_dto=None
        ),
    )


def _link_probe(link: RedisLink) -> Probe:
    async def probe() -> bool:
        return link.up

    return probe
