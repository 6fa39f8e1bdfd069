"""Registering a standby of a server: whether it is one of that server, and fit to be read from."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import asyncpg

from strata.platform.database.administration import administrator
from strata.platform.errors import ConfigurationError
from strata.tenancy.replicas.lease import MARGIN_S

if TYPE_CHECKING:
    from sqlalchemy import URL

    from strata.tenancy.catalog.registry import Registry
    from strata.tenancy.replicas.register import ReplicaRegister

_FACTS = """
SELECT pg_is_in_recovery() AS standby, (SELECT system_identifier FROM pg_control_system()) AS cluster,
       current_setting('hot_standby_feedback') = 'on' AS feedback,
       extract(epoch FROM clock_timestamp())::float8 AS now
"""


async def add_replica(
    registry: Registry, register: ReplicaRegister, server: str, name: str, url: URL, *, actor: str
) -> None:
    """Register the standby at `url` (an administrator's), one server and not a balancer before several.

    Again with the same name, renew its address. Errors: ConfigurationError says what to change.
    """
    await require_fit_standby(registry, server, url)
    await register.add(server, name, url, actor)


async def require_fit_standby(registry: Registry, server: str, url: URL) -> None:
    """Refuse, with a ConfigurationError that says why, what is no standby of that server or not fit to be read from."""
    async with administrator(url) as standby, administrator(await registry.admin_url_of_server(server)) as primary:
        # The standby's clock first: what the second answer takes counts against it, never for it.
        there = await standby.fetchrow(_FACTS)
        read_at = time.monotonic()
        here = await primary.fetchrow(_FACTS)
        if there is None or here is None:
            message = "PostgreSQL gave no answer about itself; try again."
            raise ConfigurationError(message)
        behind_s = here["now"] - there["now"] - (time.monotonic() - read_at)
    _require_fitness(there, here, server, behind_s)


def _require_fitness(there: asyncpg.Record, here: asyncpg.Record, server: str, behind_s: float) -> None:
    if not there["standby"]:
        message = "That server is no standby: it accepts writes. Give the address of a streaming replica."
    elif there["cluster"] != here["cluster"]:
        message = f"That standby is a copy of another cluster than server «{server}»: check both addresses."
    elif not there["feedback"]:
        message = "hot_standby_feedback is off there: set it to on, or clean-up on the primary would cancel reads on the standby."
    elif behind_s > MARGIN_S:
        message = (
            f"The standby's clock is {behind_s:.1f} s behind its primary's: let both follow the same time server; "
            f"{MARGIN_S:.0f} s are tolerated."
        )
    else:
        return
    raise ConfigurationError(message)
