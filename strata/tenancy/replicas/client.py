"""What the current request knows of its client's writes, and learns while it runs."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from strata.platform.database.lsn import parse_lsn
from strata.tenancy.replicas import position

if TYPE_CHECKING:
    from strata.tenancy.cell.door import CellSecret
    from strata.tenancy.context import TenantContext


class TellsPosition(Protocol):
    """A connection whose COMMIT can say how far the log has come."""

    position: str | None

    def ask_position(self) -> None: ...


class ClientReads:
    """Set for the length of a request by routing; elsewhere (jobs, commands) there is none, and the primary is read.

    An object that is shared by all tasks of the request, so that what a session deep inside learns arrives outside.
    """

    __slots__ = ("lost_standby", "may_use_standby", "position", "token", "wants_position", "wrote")

    def __init__(self, *, may_use_standby: bool, token: str | None = None, wants_position: bool = False) -> None:
        self.may_use_standby = may_use_standby
        self.token = token
        """The position that the client sent; None: no standby is too far behind for it."""
        self.wants_position = wants_position
        self.wrote = False
        self.position: str | None = None
        """Sealed; to be handed to the client."""
        self.lost_standby = False
        """A standby went away under a read: the request may be run again, on the primary."""

    def about_to_write(self, driver: TellsPosition) -> None:
        """From here on the client has written, whatever becomes of the COMMIT."""
        self.wrote = True
        self.position = None
        if self.wants_position:
            driver.ask_position()

    def has_written(self, driver: TellsPosition, secret: CellSecret | None, context: TenantContext) -> None:
        if self.wants_position and driver.position is not None and secret is not None:
            self.position = position.sealed(secret, context, parse_lsn(driver.position))


CLIENT: ContextVar[ClientReads | None] = ContextVar("strata_client_reads", default=None)
