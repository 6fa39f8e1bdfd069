"""What an upgrade was asked to do, and what came of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from strata.platform.errors import ConflictError
from strata.tenancy.model import UpgradeTroubleState

CATALOG = "catalog"
"""Where a status names a cell: the catalog itself."""


class Trouble(msgspec.Struct, frozen=True):
    """Why the last upgrade left a schema where it is."""

    state: UpgradeTroubleState
    attempts: int
    error: str
    last_at: datetime


class SchemaStatus(msgspec.Struct, frozen=True):
    cell: str
    """The cell's name, or «catalog»."""
    schema: str
    revision: str | None
    """None: the cell could not be asked."""
    head: str | None
    server: str | None = None
    trouble: Trouble | None = None
    silence: str | None = None
    """Why the cell did not answer."""

    @property
    def current(self) -> bool:
        return self.revision == self.head


class UpgradePlan(msgspec.Struct, frozen=True):
    canary: int = 0
    """So many schemas first; unless they all succeed, no other is touched."""
    jobs: int | None = None
    """Connections at most; None: as many as the settings say."""
    dry_run: bool = False
    wait: bool = False
    """For another upgrade to end, instead of refusing."""


class OutcomeState(StrEnum):
    UPGRADED = "upgraded"
    PENDING = "pending"
    """Not tried: a dry run, or the canary failed."""
    FAILED = "failed"
    AHEAD = "ahead"
    """A newer release has been here: nothing to do for this one."""
    DEFERRED = "deferred"
    """A move holds the schema; the next upgrade takes it."""


class Outcome(msgspec.Struct, frozen=True):
    cell: str
    schema: str
    state: OutcomeState
    revision: str | None
    """The one it had."""
    head: str
    canary: bool = False
    attempts: int = 0
    error: str | None = None


class UpgradeReport(msgspec.Struct, frozen=True):
    outcomes: list[Outcome]
    dry_run: bool
    stopped_at_canary: bool

    def of(self, state: OutcomeState) -> list[Outcome]:
        return [each for each in self.outcomes if each.state is state]

    @property
    def complete(self) -> bool:
        """Nothing lags behind any more."""
        return all(each.state in {OutcomeState.UPGRADED, OutcomeState.AHEAD} for each in self.outcomes)


class UpgradeRunningError(ConflictError):
    code = "upgrade-running"
    title = "An upgrade is running"

    def __init__(self) -> None:
        super().__init__("Another process is upgrading right now; strata db status shows how far it is.")
