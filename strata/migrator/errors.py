"""What can stand in a move's way, each with its name and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from strata.platform.errors import ConflictError, InvalidInputError, NotFoundError, StrataError, UnavailableError


class UnknownMoveError(NotFoundError):
    code = "unknown-move"
    title = "No such move"

    def __init__(self, name: str) -> None:
        super().__init__(f"No move answers to «{name}»; strata migrate list shows those there are.")


class AmbiguousMoveError(ConflictError):
    code = "ambiguous-move"
    title = "More than one move"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"More than one move's id begins with «{name}»; write more of it (strata migrate list), or the tenant's slug."
        )


class MoveUnderWayError(ConflictError):
    code = "move-under-way"
    title = "The tenant is being moved already"

    def __init__(self, slug: str) -> None:
        super().__init__(
            f"«{slug}» has a move that has not ended: strata migrate status {slug} shows it; complete it, roll it back "
            "or cancel it first."
        )


class WishRefusedError(ConflictError):
    code = "wish-refused"
    title = "Not in this phase"


class NotFitError(InvalidInputError):
    """Preflight found something in the way."""

    code = "move-not-possible"
    title = "The move cannot be made"

    def __init__(self, objections: Sequence[str], *, passes: bool = False) -> None:
        super().__init__("The move cannot be made: " + " ".join(objections), extra={"objections": list(objections)})
        self.passes = passes
        """All of it goes away by itself, when other moves have ended."""


class SupersededError(StrataError):
    """Another worker has taken the move over; this one writes nothing more."""

    code = "superseded"
    title = "Another attempt has taken over"

    def __init__(self, move_id: UUID, attempt: int) -> None:
        super().__init__(f"Attempt {attempt} of move {move_id} is over: another worker has it.")


class PutOffError(UnavailableError):
    """Something passes by itself; the step is run again after `after_s`."""

    code = "put-off"
    title = "The move waits"

    def __init__(self, detail: str, after_s: float = 1.0) -> None:
        super().__init__(detail)
        self.after_s = after_s


class CalledOffError(PutOffError):
    """A cut-over could not be done within its deadlines; the tenant has been let in again where it was."""

    code = "cut-over-called-off"
    title = "The cut-over was called off"


class FailedOverError(PutOffError):
    """A standby was promoted, and nobody has approved it: what it lacks is not known, so nothing is built on it."""

    code = "server-not-approved"
    title = "The server was failed over"

    def __init__(self, cell: str) -> None:
        super().__init__(
            f"The server of cell {cell} has been failed over to a standby that nobody has approved. Its tenants are shut "
            "out, and the move waits, until that is done: strata doctor says what there is to do."
        )


class StandbyBehindError(PutOffError):
    """The only other copy of the tenant is not taken away before the standbys of its home have their own."""

    code = "standby-behind"
    title = "A standby has not got the tenant yet"

    def __init__(self, cell: str, names: Sequence[str]) -> None:
        super().__init__(
            f"The other home is kept until the standbys of {cell} have the tenant too; behind: {', '.join(names)}. Of one "
            "that will not come back, drop the replication slot."
        )


class HomeLostError(ConflictError):
    """After the flip: the cell does not let the tenant in where the catalog says that it lives."""

    code = "home-lost"
    title = "The tenant's home lets nobody in"

    def __init__(self, cell: str, epoch: int) -> None:
        super().__init__(
            f"Cell {cell} does not let the tenant in at epoch {epoch}, at which it arrived there: the server was failed "
            "over to a standby that had not heard of the arrival. The other home is kept as it was."
        )


class OtherHomeGoneError(ConflictError):
    """The loss of a home cannot be accepted: the tenant has nowhere to live on."""

    code = "other-home-gone"
    title = "The other home is gone as well"

    def __init__(self, cell: str, epoch: int) -> None:
        super().__init__(
            f"Cell {cell} does not have the home any more that the tenant left at epoch {epoch}: the loss of the one it moved to "
            "cannot be accepted, since neither is there. What remains is a backup, or the disk of the old primary."
        )


class CopyAgainError(StrataError):
    """The stream has a hole or the snapshot is lost: only a new copy is whole."""

    code = "copy-again"
    title = "The copy starts again"


class VerificationError(ConflictError):
    code = "verification-failed"
    title = "Source and target differ"

    def __init__(self, count: int, differences: list[dict[str, Any]]) -> None:
        named = "; ".join(
            f"{each['table']} {', '.join(f'{name}={value}' for name, value in each['key'].items())} ({each['kind']})"
            for each in differences[:5]
        )
        super().__init__(
            f"At least {count} rows differ between source and target: {named}. The cut-over is refused.",
            extra={"differences": differences},
        )


class WayBackLostError(ConflictError):
    code = "way-back-lost"
    title = "The move can no longer be rolled back"
