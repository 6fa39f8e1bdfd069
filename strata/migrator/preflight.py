"""Whether a cell can take part in a move at all: its tables, its server's settings, what is still free there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from strata.migrator.fitness import objections_to_source
from strata.migrator.tables import describe

if TYPE_CHECKING:
    import asyncpg

    from strata.migrator.sites import End
    from strata.platform.settings import MigratorSettings

_SLOTS = 3
"""Out or back, the one that verifies, and one to spare while the next replaces the last."""

_ROOM = """
SELECT current_setting('wal_level') AS wal_level,
       current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots) AS slots,
       current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication) AS senders,
       (SELECT setting::int FROM pg_settings WHERE name IN ('max_active_replication_origins', 'max_replication_slots')
        ORDER BY name LIMIT 1) - (SELECT count(*) FROM pg_replication_origin_status) AS origins,
       (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user) AS replicates
"""


class Objection(msgspec.Struct, frozen=True):
    sentence: str
    passes: bool = False
    """When other moves have ended."""


async def objections_to(end: End, settings: MigratorSettings) -> list[Objection]:
    """What stands against taking the tenant from here, in sentences."""
    async with end.admin() as connection:
        await connection.execute("SET row_security = off")
        tables = await describe(connection, end.home.schema_name)
        problems = [Objection(each.problem) for each in await objections_to_source(connection, tables)]
        return [*problems, *await objections_to_server(connection, end.place.cell, settings)]


async def objections_to_server(
    connection: asyncpg.Connection, cell: str, settings: MigratorSettings
) -> list[Objection]:
    room = await connection.fetchrow(_ROOM)
    assert room is not None  # noqa: S101 - a SELECT without FROM has one row
    problems = []
    if room["wal_level"] != "logical":
        problems.append(Objection(f"The server of {cell} runs with wal_level {room['wal_level']}; moves need logical."))
    if not room["replicates"]:
        problems.append(Objection(f"The administrator's role on {cell} may not replicate: ALTER ROLE … REPLICATION."))
    for what, needed, setting in (
        ("slots", _SLOTS, "max_replication_slots"),
        ("senders", _SLOTS, "max_wal_senders"),
        ("origins", settings.copy_workers + 1, "max_active_replication_origins"),
    ):
        if room[what] < needed:
            sentence = (
                f"The server of {cell} has {room[what]} replication {what} free and a move needs {needed}: raise {setting}, "
                "or wait until other moves have ended."
            )
            problems.append(Objection(sentence, passes=True))
    return problems
