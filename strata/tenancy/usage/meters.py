"""What is counted. Domains add meters of their own by events (tenancy/events/usage.py)."""

from __future__ import annotations

from enum import StrEnum


class Meter(StrEnum):
    API_CALLS = "api-calls"
    """Requests to the API that were let in."""
    REQUESTS = "requests"
    """All that were let in: API and pages."""
    REFUSED = "refused"
    """Those that were not, because a limit was reached."""
    COMPUTE_MS = "compute-ms"
    """Time from letting a request in to the end of its answer."""
    BYTES_IN = "bytes-in"
    BYTES_OUT = "bytes-out"
    """Bodies of requests and of answers, without headers."""
    DATABASE_MS = "database-ms"
    """Time during which statements and commits were under way, of requests and of jobs."""
    ROWS_TOUCHED = "rows-touched"
    """Read, written or deleted, as the database counts them."""
    STORAGE_BYTES = "storage-bytes"
    """An estimate: the tenant's part of each table with its indexes, by number of rows."""
    ROWS = "rows"
    ACTIVE_USERS = "active-users"
    """People and programs, by the subject of their token, that were signed in and asked for anything."""

    @property
    def is_peak(self) -> bool:
        """What is there at a moment: of a day and of a month the highest counts. The others add up."""
        return self in _PEAKS


_PEAKS = frozenset({Meter.STORAGE_BYTES, Meter.ROWS})
