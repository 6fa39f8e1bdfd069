"""Which copy of a cell the catalog has approved: an older one, or another one, must not answer to its server's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from strata.platform.errors import ConflictError

if TYPE_CHECKING:
    from strata.tenancy.catalog.tables import CellRow
    from strata.tenancy.cell.inspection import DoorState


class OldTimelineError(ConflictError):
    code = "old-timeline"
    title = "An older server"

    def __init__(self, cell: str, timeline: str, approved: str) -> None:
        super().__init__(
            f"Cell «{cell}» runs on timeline {timeline} there, and {approved} was approved: this is the primary of before the "
            "last fail-over. It must take no more work; rebuild it as a standby of the present one."
        )


class AnotherCopyError(ConflictError):
    code = "another-copy"
    title = "Another copy of the cell"

    def __init__(self, cell: str, timeline: str) -> None:
        super().__init__(
            f"Timeline {timeline} of cell «{cell}» was approved on another server than this one, which has not heard of it and "
            "has nothing of what was written there. Register that one, and rebuild this one as its standby; if it is lost for "
            f"good, approve this one with --give-up {timeline}."
        )


class SameTimelineError(ConflictError):
    code = "same-timeline"
    title = "Two copies on one timeline"

    def __init__(self, cell: str, timeline: str) -> None:
        super().__init__(
            f"Cell «{cell}» runs there on timeline {timeline}, and so did the server that is given up: should that come back, "
            "nobody could tell them apart. Give this one a timeline of its own: stop it, put an empty file standby.signal into "
            "its data directory, start it, run SELECT pg_promote() there, and approve again."
        )


def has_not_heard(row: CellRow, door: DoorState) -> bool:
    """Whatever tenants wrote on the approved timeline came after the row that approved it, which this copy lacks."""
    return row.timeline is not None and door.approved_timeline < row.timeline


def require_newest(row: CellRow, door: DoorState, given_up: str | None = None) -> None:
    """Refuse what runs on a timeline that is over. `given_up`: the approved one, whose server is lost for good."""
    if row.timeline is None or door.timeline is None:
        return
    # Eight hexadecimal digits: they compare as the numbers do.
    if door.timeline < row.timeline:
        raise OldTimelineError(row.name, door.timeline, row.timeline)
    if has_not_heard(row, door):
        if row.timeline != given_up:
            raise AnotherCopyError(row.name, row.timeline)
        if door.timeline == row.timeline:
            raise SameTimelineError(row.name, row.timeline)
