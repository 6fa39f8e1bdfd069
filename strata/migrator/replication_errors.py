"""What can stop the reading and applying of changes, by name, and what to do about each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from strata.platform.database.lsn import Lsn, format_lsn
from strata.platform.errors import ConflictError, StrataError, UnavailableError


class Blocker(msgspec.Struct, frozen=True):
    """A transaction that the creation of a slot waits for. `pid` is None for a prepared one, which no session holds."""

    pid: int | None
    database: str
    user: str
    application: str
    transaction_age_s: float

    def __str__(self) -> str:
        who = f"pid {self.pid}" if self.pid is not None else f"prepared transaction {self.application}"
        label = f" ({self.application})" if self.pid is not None and self.application else ""
        return f"{who}{label} of {self.user} in {self.database}, open for {self.transaction_age_s:.0f} s"


class ReplicationError(StrataError):
    """`try_again`: the same replay may go on from its progress row once the servers answer."""

    try_again: ClassVar[bool] = False


class SlotBlockedError(UnavailableError):
    code = "slot-blocked"
    title = "A replication slot cannot be made now"

    def __init__(self, slot: str, waited_s: float, blockers: Sequence[Blocker]) -> None:
        named = "; ".join(map(str, blockers)) or "nothing that still runs"
        super().__init__(
            f"Replication slot {slot} was not ready after {waited_s:.0f} s, because writing transactions anywhere in the "
            f"cluster have to end first: {named}. End them, or try again later."
        )
        self.slot = slot
        self.blockers = tuple(blockers)


class SnapshotLostError(ReplicationError):
    code = "snapshot-lost"
    title = "The exported snapshot is gone"

    def __init__(self, slot: str, reason: object) -> None:
        super().__init__(
            f"The session that held the snapshot of slot {slot} has ended ({reason}): drop the slot, empty the target "
            "and copy again; a second snapshot would not fit the slot."
        )


class SlotMissingError(ReplicationError):
    code = "slot-missing"
    title = "The replication slot is gone"

    def __init__(self, slot: str) -> None:
        super().__init__(f"There is no replication slot {slot} on the source: what it kept is lost, so copy again.")


class SlotRecreatedError(ReplicationError):
    code = "slot-recreated"
    title = "This is another replication slot of the same name"

    def __init__(self, slot: str, reason: str) -> None:
        super().__init__(f"Replication slot {slot} is not the one this copy was made with ({reason}): copy again.")


class SlotAheadError(ReplicationError):
    """A slot that has moved past the progress row skips what lies between without a word."""

    code = "slot-ahead"
    title = "The slot has moved past what was applied"

    def __init__(self, slot: str, confirmed: Lsn, progress: Lsn) -> None:
        super().__init__(
            f"Replication slot {slot} starts at {format_lsn(confirmed)}, but only {format_lsn(progress)} has been "
            "applied: the changes between are lost, so copy again."
        )
        self.confirmed = confirmed
        self.progress = progress


class SlotLostError(ReplicationError):
    code = "slot-lost"
    title = "The source no longer keeps the log this slot needs"

    def __init__(self, slot: str, reason: str) -> None:
        super().__init__(f"Replication slot {slot} has been invalidated ({reason}): drop it and copy again.")


class PublicationMissingError(ReplicationError):
    """PostgreSQL 18 goes on without a publication that is missing, and sends nothing of its tables."""

    code = "publication-missing"
    title = "The publication is gone"

    def __init__(self, publication: str, reason: str) -> None:
        super().__init__(f"Publication {publication} {reason}: changes may have been lost, so copy again.")


class ProgressMissingError(ReplicationError):
    code = "progress-missing"
    title = "Nothing says where to go on"

    def __init__(self, origin: str) -> None:
        super().__init__(f"The target has no progress row for {origin}: the copy was not completed, so copy again.")


class AttemptSupersededError(ReplicationError):
    code = "attempt-superseded"
    title = "Another attempt has taken over"

    def __init__(self, origin: str, attempt: int) -> None:
        super().__init__(
            f"The progress row of {origin} no longer carries attempt {attempt}: this applier is out of date and has "
            "written nothing. Leave the work to the newer attempt."
        )


class ApplierBusyError(ReplicationError):
    code = "applier-busy"
    title = "Another applier is at work"
    try_again = True

    def __init__(self, origin: str, pid: int | None) -> None:
        holder = f"pid {pid} on the target" if pid else "another session on the target"
        super().__init__(f"Replication origin {origin} is held by {holder}: only one may apply. Wait for it to end.")
        self.pid = pid


class OriginsExhaustedError(ReplicationError):
    code = "origins-exhausted"
    title = "No replication origin is free"

    def __init__(self, reason: object) -> None:
        super().__init__(
            f"The target has no replication origin left ({reason}): raise max_active_replication_origins (before "
            "PostgreSQL 18: max_replication_slots) or wait until other moves have ended."
        )


class TruncateError(ReplicationError):
    """TRUNCATE ignores row filters, so it cannot be told whose rows went."""

    code = "table-truncated"
    title = "A moving table was truncated"

    def __init__(self, tables: Sequence[str]) -> None:
        super().__init__(
            f"{', '.join(tables)}: truncated on the source while a tenant's rows were being moved. Copy again, and use "
            "DELETE while a move is under way."
        )


class SchemaChangedError(ReplicationError):
    code = "moving-table-changed"
    title = "A moving table was altered"

    def __init__(self, table: str, reason: str) -> None:
        super().__init__(f"Table {table}: {reason}. Let the schemas agree again, then copy again.")


class MissingRowError(ReplicationError):
    """Copy and stream do not fit together, or somebody else has written to the target."""

    code = "row-missing"
    title = "A changed row is not on the target"

    def __init__(self, table: str, operation: str, expected: int, found: int, keys: Sequence[Sequence[str]]) -> None:
        named = ", ".join("(" + ", ".join(key) + ")" for key in keys)
        super().__init__(
            f"{operation} of {expected} rows of {table} found {found} on the target; missing: {named or 'unknown'}. "
            "The target is not what was copied, so copy again."
        )
        self.table = table
        self.keys = tuple(tuple(key) for key in keys)


class ForeignRowError(ReplicationError):
    code = "foreign-row"
    title = "The stream carries another tenant's row"

    def __init__(self, table: str) -> None:
        super().__init__(
            f"A change of {table} belongs to another tenant than the one that is moved: nothing of it was applied. "
            "The publication's row filter is wrong; make publication and slot anew and copy again."
        )


class UnappliableError(ConflictError):
    code = "change-unappliable"
    title = "A change does not fit the target"
    try_again: ClassVar[bool] = False

    def __init__(self, reason: object, sqlstate: str | None) -> None:
        super().__init__(
            f"The target refused a change of the source ({sqlstate}: {reason}): see to the cause, then copy again."
        )
        self.sqlstate = sqlstate


class StreamLostError(UnavailableError):
    code = "stream-lost"
    title = "The source's stream has broken off"
    try_again: ClassVar[bool] = True

    def __init__(self, reason: object) -> None:
        super().__init__(
            f"The stream of changes from the source ended ({reason}): start it again from the progress row."
        )


class TargetLostError(UnavailableError):
    code = "target-lost"
    title = "The target does not answer"
    try_again: ClassVar[bool] = True

    def __init__(self, reason: object) -> None:
        super().__init__(f"The connection to the target ended ({reason}): start again from the progress row.")


class ProtocolError(ReplicationError):
    code = "replication-protocol"
    title = "The source sent what cannot be"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The stream of changes cannot be read: {reason}. This is a fault in Strata or in PostgreSQL.")
