from __future__ import annotations

from uuid import UUID

from strata.platform.errors import ConflictError, ForbiddenError, NotFoundError


class RequestNotFoundError(NotFoundError):
    code = "movement-request-not-found"
    title = "No such request"

    def __init__(self, request_id: UUID) -> None:
        super().__init__(f"There is no request {request_id}; list the movement requests to find it.")


class AlreadyDecidedError(ConflictError):
    code = "already-decided"
    title = "Decided already"

    def __init__(self, request_id: UUID, state: str) -> None:
        super().__init__(f"Request {request_id} has been {state} already; nothing more can be decided about it.")


class OwnRequestError(ForbiddenError):
    code = "own-request"
    title = "Somebody else approves"

    def __init__(self) -> None:
        super().__init__("Nobody approves a movement that they asked for themselves; ask somebody else who may.")


class ApprovalNeededError(ConflictError):
    """Where nothing can wait: the tenant refuses such movements, or they come from where nobody asks."""

    code = "approval-needed"
    title = "Too much for one movement"

    def __init__(self, why: str) -> None:
        super().__init__(f"{why} Move less at a time, or have an administrator change the rule.")
