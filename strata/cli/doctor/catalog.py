"""The catalog, Redis, the clock, workers, and tenants that something died over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import redis.asyncio
import redis.exceptions
from sqlalchemy import URL, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from strata.cli.doctor.report import Report
from strata.platform.database import addresses
from strata.platform.database.administration import administrator
from strata.platform.settings import Settings
from strata.runtime import Runtime
from strata.tenancy.catalog.tables import TenantRow
from strata.tenancy.model import TenantStatus
from strata.tenancy.provisioning.upgrade_survey import UpgradeSurvey

_SKEW_WORTH_A_WARNING_S = 1.0
# Tokens from machines further apart than this are refused as issued in the future (platform/tokens.py).
_SKEW_THAT_BREAKS_S = 5.0
_REDIS_TIMEOUT_S = 2.0
_SWEPT_WITHIN = timedelta(minutes=1)


async def check_catalog(report: Report, url: URL, survey: UpgradeSurvey) -> bool:
    async with administrator(url) as admin:
        version = await admin.fetchval("SELECT current_setting('server_version')")
    status = await survey.of_catalog()
    if status.current:
        report.ok("catalog", f"PostgreSQL {version} at {url.host}:{url.port or 5432}, revision {status.revision}")
        return True
    report.failure(
        "catalog",
        f"revision {status.revision or 'none'}, the newest is {status.head}",
        "Bring it up to date with strata db upgrade.",
    )
    return False


async def check_redis(report: Report, settings: Settings) -> None:
    if settings.redis_url is None:
        report.failure("redis", "nobody says where it is", "Set STRATA_REDIS_URL, or start one with strata up.")
        return
    client = redis.asyncio.Redis.from_url(
        settings.redis_url.get_secret_value(), socket_timeout=_REDIS_TIMEOUT_S, socket_connect_timeout=_REDIS_TIMEOUT_S
    )
    try:
        server = await client.info("server")
    except (redis.exceptions.RedisError, OSError) as error:
        report.warning(
            "redis",
            f"does not answer ({type(error).__name__}); everything works, slower",
            "Start it, or correct STRATA_REDIS_URL.",
        )
    else:
        report.ok("redis", f"version {server['redis_version']} answers")
    finally:
        await client.aclose()


async def check_clock(report: Report, runtime: Runtime) -> None:
    async with runtime.catalog_engine.connect() as connection:
        before = datetime.now(UTC)
        theirs: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
        after = datetime.now(UTC)
    skew_s = max((before - theirs).total_seconds(), (theirs - after).total_seconds(), 0.0)
    found = f"{skew_s:.2f} s between this machine and the catalog's"
    if skew_s >= _SKEW_THAT_BREAKS_S:
        report.failure("clock", found, "Run a time service on both: tokens are refused when clocks differ this much.")
    elif skew_s >= _SKEW_WORTH_A_WARNING_S:
        report.warning("clock", found, "Run a time service (chrony, systemd-timesyncd) on both machines.")
    else:
        report.ok("clock", found)


async def check_workers(report: Report, runtime: Runtime) -> None:
    seen = await runtime.jobs.store.last_heartbeat()
    limit = timedelta(seconds=runtime.settings.jobs.stalled_after_s)
    silent = None if seen is None else max(datetime.now(UTC) - seen, timedelta(0))
    if silent is not None and silent <= limit:
        report.ok("workers", f"one was heard of {silent.total_seconds():.0f} s ago")
        return
    report.warning(
        "workers",
        "none is running" if silent is None else f"the last one was heard of {silent} ago",
        "Start one with strata worker (strata up runs one too): jobs, events, imports and moves wait for it.",
    )


async def check_stuck_tenants(report: Report, runtime: Runtime) -> None:
    unfinished = [TenantStatus.PROVISIONING, TenantStatus.CLOSING]
    async with AsyncSession(runtime.catalog_engine) as session:
        stuck = (
            await session.scalars(
                select(TenantRow.slug)
                .where(TenantRow.status.in_(unfinished), TenantRow.created_at < datetime.now(UTC) - _SWEPT_WITHIN)
                .order_by(TenantRow.slug)
            )
        ).all()
    if stuck:
        report.warning(
            "half-made tenants",
            ", ".join(stuck),
            "A worker sweeps them within seconds; if none does, the log of strata worker says why.",
        )
    else:
        report.ok("half-made tenants", "none")


def catalog_url(settings: Settings) -> URL:
    return addresses.parse(settings.database_url.get_secret_value() if settings.database_url else "")
