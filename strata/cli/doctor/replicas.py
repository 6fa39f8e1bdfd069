"""Registered standbys: are they fit to be read from, and do they follow their primaries."""

from __future__ import annotations

from strata.cli.doctor.report import Report
from strata.platform.database.administration import administrator
from strata.runtime import Runtime
from strata.tenancy.provisioning.standbys import require_fit_standby
from strata.tenancy.replicas.register import Registration

_PROGRESS = """
SELECT (SELECT status = 'streaming' FROM pg_stat_wal_receiver) AS streaming,
       pg_is_wal_replay_paused() AS paused,
       pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::bigint AS behind_bytes
"""


async def check_replica(report: Report, runtime: Runtime, server: str, replica: Registration) -> None:
    name = f"replica {replica.name}"
    await require_fit_standby(runtime.registry, server, replica.url)
    async with administrator(replica.url) as admin:
        [progress] = await admin.fetch(_PROGRESS)
    if not progress["streaming"]:
        report.warning(
            name, f"receives nothing from {server}", "Its log says why; until it streams, reads go to the primary."
        )
    elif progress["paused"]:
        report.warning(
            name, "its replay is paused", "SELECT pg_wal_replay_resume() there; until then reads go to the primary."
        )
    else:
        report.ok(name, f"follows {server}, {progress['behind_bytes']} bytes to replay")
