"""Why a server is not approved, each with its name and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

from strata.platform.errors import ConflictError, UnavailableError


class NotPromotedError(ConflictError):
    code = "not-promoted"
    title = "Still a standby"

    def __init__(self, server: str) -> None:
        super().__init__(
            f"What answers as server «{server}» is a standby that has not been promoted: make sure that the old primary is "
            "down, then run SELECT pg_promote() there, and approve again."
        )


class StrangeCellError(ConflictError):
    code = "strange-cell"
    title = "Not this server's cell"

    def __init__(self, cell: str, server: str) -> None:
        super().__init__(
            f"The database of cell «{cell}» on what answers as server «{server}» is not the cell that the catalog knows (its "
            "name or secret differs): give the address of the standby of that server."
        )


class NoCellsError(ConflictError):
    code = "no-cells"
    title = "None of the cells is there"

    def __init__(self, server: str, cells: Sequence[str]) -> None:
        super().__init__(
            f"What answers as server «{server}» has none of its cells ({', '.join(cells)}): give the address of the promoted "
            "standby of that server."
        )


class StillWritableError(ConflictError):
    code = "old-primary-writes"
    title = "The old primary still works"

    def __init__(self, server: str, address: str) -> None:
        super().__init__(
            f"The old primary of server «{server}» still answers at {address} and takes writes, which would be lost: stop it, "
            "make sure that it stays down, then approve again."
        )


class PerhapsWritableError(ConflictError):
    code = "old-primary-unknown"
    title = "The old primary may still work"

    def __init__(self, server: str, address: str, reason: str) -> None:
        super().__init__(
            f"PostgreSQL runs at {address}, where the old primary of server «{server}» was, and does not let its administrator "
            f"in ({reason}): it may still take writes, which would be lost. Stop it, make sure that it stays down, then approve "
            "again. If that address is another server's by now, register the standby's first (strata server add), and approve "
            "without an address."
        )


class NothingGivenUpError(ConflictError):
    code = "nothing-given-up"
    title = "Nothing to give up"

    def __init__(self, server: str, given_up: str) -> None:
        super().__init__(
            f"No cell of server «{server}» lacks what was written on timeline «{given_up}»: there is nothing to give up. Run the "
            "same without --give-up; if it is refused, the refusal names the timeline."
        )


class ApprovalRunningError(ConflictError):
    code = "approval-running"
    title = "Being approved already"

    def __init__(self, server: str) -> None:
        super().__init__(f"Another process is approving server «{server}» right now; look again when it is done.")


class CutOverUnderWayError(UnavailableError):
    code = "cut-over-under-way"
    title = "A cut-over has not ended"

    def __init__(self, server: str, moves: Sequence[str]) -> None:
        super().__init__(
            f"A cut-over from or to server «{server}» has not been called off yet ({', '.join(moves)}): a worker does that by "
            "itself. See that one runs (strata worker), then approve again."
        )
