"""Composition: everything a process of Strata is made of, wired once. Only app, worker and cli use it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol, TypeVar
from uuid import UUID

import msgspec
from openfeature.client import OpenFeatureClient
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.inventory import quotas
from strata.inventory.settings import SECTIONS as INVENTORY_SECTIONS
from strata.migrations import MIGRATIONS
from strata.migrator.approval.desk import ApprovalDesk
from strata.migrator.approval.leftovers import Leftovers
from strata.migrator.desk import CHANNEL, Desk
from strata.migrator.moves import Moves
from strata.migrator.sites import Sites
from strata.migrator.waves.desk import WaveDesk
from strata.migrator.waves.store import Waves
from strata.platform.database import addresses
from strata.platform.database.administration import KeptConnections
from strata.platform.database.liveness import engine_asking_first
from strata.platform.errors import ConfigurationError
from strata.platform.jobs.store import JobStore
from strata.platform.keys.port import KeyPort
from strata.platform.keys.provider import key_port
from strata.platform.redis_link import RedisDownError, RedisLink
from strata.platform.settings import Settings
from strata.platform.tokens import TokenAuthority
from strata.tenancy.arrivals import Arrivals
from strata.tenancy.attestation.statement import Attestation
from strata.tenancy.catalog.domains import Domains
from strata.tenancy.catalog.registry import Registry
from strata.tenancy.catalog.signing_keys import CatalogSigningKeys
from strata.tenancy.catalog.tenants import TenantDirectory
from strata.tenancy.cell.engines import CellEngines
from strata.tenancy.cell.schema_revisions import Chains
from strata.tenancy.context_cache import ContextCache
from strata.tenancy.context_loader import ContextLoader
from strata.tenancy.entitlements.desk import Counted, EntitlementDesk
from strata.tenancy.events.bell import Bell
from strata.tenancy.flags.desk import FlagDesk
from strata.tenancy.flags.holder import Flags
from strata.tenancy.flags.provider import serving_flags
from strata.tenancy.jobs import JobQueue
from strata.tenancy.limits.concurrency import Concurrency
from strata.tenancy.limits.rates import RateLimiter
from strata.tenancy.model import Tier
from strata.tenancy.neighbours.book import NeighbourBook
from strata.tenancy.neighbours.watching import NeighbourWatch
from strata.tenancy.provisioning.cells import CellBuilder
from strata.tenancy.provisioning.draining import Drains
from strata.tenancy.provisioning.homes import Home, homes
from strata.tenancy.provisioning.stock import Stock
from strata.tenancy.provisioning.tenants import Provisioning
from strata.tenancy.provisioning.upgrade_survey import UpgradeSurvey
from strata.tenancy.provisioning.upgrades import Upgrades
from strata.tenancy.replicas.choice import ReplicaChoice
from strata.tenancy.replicas.register import ReplicaRegister
from strata.tenancy.session import Tenants
from strata.tenancy.settings.book import SettingsBook
from strata.tenancy.settings.model import SettingsModel
from strata.tenancy.settings.sections import SECTIONS
from strata.tenancy.usage.book import UsageBook
from strata.tenancy.usage.flushing import UsageFlusher
from strata.tenancy.usage.meter import UsageMeter


class _Closing(Protocol):
    async def close(self) -> None: ...


C = TypeVar("C", bound=_Closing)


class Runtime(msgspec.Struct, frozen=True):
    settings: Settings
    catalog_url: URL
    catalog_engine: AsyncEngine
    key_port: KeyPort
    link: RedisLink
    contexts: ContextCache
    registry: Registry
    engines: CellEngines
    tenants: Tenants
    arrivals: Arrivals
    directory: TenantDirectory
    entitlements: EntitlementDesk
    flags: Flags
    flag_client: OpenFeatureClient
    flag_desk: FlagDesk
    domains: Domains
    settings_book: SettingsBook
    attestation: Attestation
    cells: CellBuilder
    homes: dict[Tier, Home]
    provisioning: Provisioning
    upgrades: Upgrades
    replicas: ReplicaRegister
    drains: Drains
    jobs: JobQueue
    desk: Desk
    waves: WaveDesk
    approvals: ApprovalDesk
    tokens: TokenAuthority
    rates: RateLimiter
    concurrency: Concurrency
    meter: UsageMeter
    usage: UsageBook
    flusher: UsageFlusher
    neighbours: NeighbourBook
    watch: NeighbourWatch


@asynccontextmanager
async def open_runtime(settings: Settings, *, upgrade: bool = False) -> AsyncIterator[Runtime]:
    """Connect to catalog and Redis and wire the rest; closed at the end of the block.

    Both addresses must be set by now: `strata up` fills in those of its embedded servers. With `upgrade`, the catalog
    and every cell are brought to head first.
    """
    catalog_url, redis_url = _servers_of(settings)
    async with AsyncExitStack() as stack:
        catalog = engine_asking_first(addresses.for_asyncpg(catalog_url), pool_size=5, max_overflow=10)
        stack.push_async_callback(catalog.dispose)
        keys = key_port(settings)
        registry = Registry(catalog, keys)
        chains = Chains.at(MIGRATIONS)
        survey = UpgradeSurvey(addresses.libpq(catalog_url), keys, chains, settings.upgrades.jobs)
        upgrades = Upgrades(catalog, catalog_url, survey, settings.upgrades)
        if upgrade:
            await upgrades.catalog()
        link = RedisLink(redis_url, timeout_s=settings.cache.redis_timeout_s)
        loader = ContextLoader(catalog)
        contexts = ContextCache(loader, link, settings.cache)
        flags = Flags(catalog, link, settings.flags)
        replicas = ReplicaRegister(catalog, registry, keys)
        engines = _to_be_closed(stack, CellEngines(replicas, settings.pool))
        standbys = _to_be_closed(stack, ReplicaChoice(replicas, registry))
        bell, meter = Bell(link), UsageMeter()
        tenants = Tenants(engines, contexts, settings.fence, bell.ring, standbys, meter)
        arrivals = Arrivals(link, contexts.held, tenants.make_ready, tenants.look_again)
        await link.start()
        for told in (link, contexts, bell, arrivals):
            _to_be_closed(stack, told)
        flag_client = await stack.enter_async_context(serving_flags(flags, contexts.held))
        rates = _to_be_closed(stack, RateLimiter(link, settings.limits))
        flusher = _to_be_closed(stack, UsageFlusher(meter, UsageBook(catalog), flush_s=settings.usage.flush_s))
        watch = _to_be_closed(
            stack,
            NeighbourWatch(meter, contexts, NeighbourBook(catalog), settings.usage, lambda: rates.presence.processes),
        )
        cells = CellBuilder(catalog, registry, chains, settings.role_prefix)
        kept = KeptConnections()
        stack.callback(kept.close)
        home = homes(chains, cells, kept)
        stock = Stock(catalog, catalog_url, registry, home[Tier.SCHEMA], settings.provisioning.spare_schemas)
        tokens = TokenAuthority(CatalogSigningKeys(catalog, settings.tokens.lifetime_s), keys, settings.tokens)
        await tokens.start()
        if upgrade:
            await upgrades.cells()
        moves = Moves(catalog)
        desk = Desk(moves, Sites(catalog, registry), cells, settings.migrator, _waker(link))
        yield Runtime(
            settings=settings,
            catalog_url=catalog_url,
            catalog_engine=catalog,
            key_port=keys,
            link=link,
            contexts=contexts,
            registry=registry,
            engines=engines,
            tenants=tenants,
            arrivals=arrivals,
            directory=TenantDirectory(catalog, contexts.announce),
            entitlements=EntitlementDesk(catalog, contexts.announce, _counter(contexts, tenants)),
            domains=Domains(catalog, contexts.announce),
            flags=flags,
            flag_client=flag_client,
            flag_desk=FlagDesk(catalog, loader, flags.announce, contexts.announce),
            attestation=Attestation(catalog, registry, contexts, tokens),
            settings_book=SettingsBook(
                catalog, keys, SettingsModel((*SECTIONS, *INVENTORY_SECTIONS)), contexts.announce
            ),
            cells=cells,
            homes=home,
            provisioning=Provisioning(catalog, catalog_url, registry, cells, home, contexts.announce, stock),
            upgrades=upgrades,
            replicas=replicas,
            drains=Drains(catalog),
            jobs=JobQueue(JobStore(catalog), contexts),
            desk=desk,
            waves=WaveDesk(Waves(moves), desk, _waker(link)),
            approvals=ApprovalDesk(
                catalog,
                catalog_url,
                registry,
                replicas,
                Leftovers(catalog, registry, cells, home, settings.role_prefix),
                role_prefix=settings.role_prefix,
                statement_timeout_ms=settings.pool.statement_timeout_ms,
            ),
            tokens=tokens,
            rates=rates,
            meter=flusher.meter,
            usage=flusher.book,
            flusher=flusher,
            neighbours=watch.book,
            watch=watch,
            concurrency=Concurrency(lambda: rates.presence.processes, soft_wait_s=settings.limits.soft_wait_s),
        )


def _servers_of(settings: Settings) -> tuple[URL, str]:
    if settings.database_url is None or settings.redis_url is None:
        message = (
            "Strata does not know its servers: set STRATA_DATABASE_URL and STRATA_REDIS_URL, or run strata up, "
            f"which starts its own under {settings.data_dir}."
        )
        raise ConfigurationError(message)
    return addresses.parse(settings.database_url.get_secret_value()), settings.redis_url.get_secret_value()


def _counter(contexts: ContextCache, tenants: Tenants) -> Counted:
    async def count(tenant_id: UUID) -> Mapping[str, int]:
        async with tenants.reading(await contexts.get_by_id(tenant_id)) as session:
            return await quotas.in_use(session)

    return count


def _to_be_closed(stack: AsyncExitStack, resource: C) -> C:
    stack.push_async_callback(resource.close)
    return resource


def _waker(link: RedisLink) -> Callable[[], Awaitable[None]]:
    async def wake() -> None:
        # Without Redis the workers find it within a second.
        with contextlib.suppress(RedisDownError):
            await link.run(lambda client: client.publish(CHANNEL, b""))

    return wake
