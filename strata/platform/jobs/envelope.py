"""What a job carries in the queue, around its arguments; `owner` and `share` are read by the fetch function in SQL."""

from __future__ import annotations

from typing import Any

import msgspec

PLATFORM = ""
"""The owner of jobs that nobody owns."""


class Envelope(msgspec.Struct, frozen=True):
    owner: str
    key: str
    attempts: int
    share: int | None = None
    """How many of the owner's jobs may run at once, over all workers; None: as many as there is room for."""
    request_id: str | None = None
    """The request that asked for the job, so that both are found together in the logs."""
    arguments: dict[str, Any] = {}
