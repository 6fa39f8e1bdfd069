"""The message that opens a read transaction on a standby (migrations/cell/sql/0003_standby_reads.sql)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from strata.platform.database.lsn import Lsn, format_lsn
from strata.platform.database.names import quoted
from strata.tenancy.model import Tier

if TYPE_CHECKING:
    from strata.tenancy.cell.door import CellSecret
    from strata.tenancy.context import TenantContext

NOT_ON_STANDBY = "SM006"
"""SQLSTATE: ask the primary."""

TELL_POSITION = "SM100"
"""SQLSTATE of the notice in which a primary says how far its log has come."""

COMMIT_AND_TELL = "SHOW transaction_isolation;COMMIT;SELECT strata.tell_position()"
"""COMMIT, and the position behind it, in one message. In a failed transaction the first statement raises: the last one's
answer would hide that the COMMIT was a ROLLBACK."""


def standby_entry_message(secret: CellSecret, context: TenantContext, standby: UUID, after: Lsn | None) -> str:
    """As `tenancy.cell.door.entry_message`, with what a standby can check by itself.

    `after` is asked for in a transaction that ends before the reading one begins: looked at after the snapshot was
    taken, replay may have come past it when the snapshot had not.
    """
    placement = context.placement
    replayed = f"BEGIN READ ONLY;SELECT strata.require_replayed('{format_lsn(after)}');COMMIT;" if after else ""
    capability = secret.capability(context.id, placement.epoch)
    role = placement.schema_name if placement.tier is Tier.SCHEMA else "none"
    search_path = quoted(placement.schema_name) + ", pg_temp"
    return (
        f"{replayed}BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY, NOT DEFERRABLE;RESET ALL;CLOSE ALL;UNLISTEN *;"
        f"SELECT strata.enter_standby('{context.id}',{placement.epoch:d},E'\\\\x{capability}','{standby}'),"
        f"set_config('search_path','{search_path}',true),set_config('role','{role}',true)"
    )
