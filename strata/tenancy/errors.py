"""What can stand between a caller and a tenant's data, each with its name."""

from __future__ import annotations

from uuid import UUID

from strata.platform.errors import ConflictError, ForbiddenError, NotFoundError, StrataError, UnavailableError


class UnknownTenantError(NotFoundError):
    code = "unknown-tenant"
    title = "No such tenant"

    def __init__(self, name: str) -> None:
        super().__init__(f"No tenant answers to «{name}»; check the address.")
        self.name = name


class TenantSuspendedError(ForbiddenError):
    code = "tenant-suspended"
    title = "Tenant suspended"

    def __init__(self, tenant_id: UUID, reason: str | None) -> None:
        said = reason or "no reason was recorded"
        super().__init__(
            f"This account is suspended ({said}); an administrator of it should contact support.",
            extra={"reason": said},
        )
        self.tenant_id = tenant_id
        self.reason = reason


class TenantClosingError(ForbiddenError):
    code = "tenant-closing"
    title = "Tenant closing"

    def __init__(self, tenant_id: UUID) -> None:
        super().__init__("This account is being closed and no longer takes requests; contact support if that is wrong.")
        self.tenant_id = tenant_id


class TenantReadOnlyError(ForbiddenError):
    code = "tenant-read-only"
    title = "Tenant is read-only"

    def __init__(self, tenant_id: UUID, reason: str | None) -> None:
        said = reason or "no reason was recorded"
        super().__init__(
            f"This account is read-only ({said}): reading works, changes are refused until that is settled.",
            extra={"reason": said},
        )
        self.tenant_id = tenant_id
        self.reason = reason


class NoTenantEnteredError(StrataError):
    """Somebody asked a cell for data outside `tenants.transaction`; a programming error, refused before any SQL runs."""

    code = "no-tenant-entered"
    title = "No tenant entered"


class CrossTenantWriteError(StrataError):
    """A row that names another tenant was about to be flushed."""

    code = "cross-tenant-write"
    status = 403
    title = "Row belongs to another tenant"


class MoveInProgressError(UnavailableError):
    code = "move-in-progress"
    title = "Tenant is moving"

    def __init__(self, tenant_id: UUID, waited_s: float) -> None:
        super().__init__(
            f"This account is being moved and did not reopen within {waited_s:.1f} s; try again in a moment.",
            retry_after_s=1,
        )
        self.tenant_id = tenant_id


class CellClosedError(UnavailableError):
    """The cell's timeline is not the approved one: a promoted standby stays closed until it is reconciled."""

    code = "cell-closed"
    title = "Cell is closed"

    def __init__(self, cell: str) -> None:
        super().__init__("The database behind this account is being checked after a fail-over; try again shortly.")
        self.cell = cell


class CellUnavailableError(UnavailableError):
    code = "cell-unavailable"
    title = "Database unavailable"

    def __init__(self, cell: str) -> None:
        super().__init__("The database behind this account does not answer; try again shortly.")
        self.cell = cell


class CapabilityRefusedError(StrataError):
    code = "capability-refused"
    title = "Capability refused"

    def __init__(self, cell: str) -> None:
        super().__init__(
            f"Cell {cell} refused this process's capability; its secret and the catalog's differ: run strata doctor."
        )
        self.cell = cell


class PlacementUnsettledError(UnavailableError):
    code = "placement-unsettled"
    title = "Tenant's place is changing"

    def __init__(self, tenant_id: UUID) -> None:
        super().__init__("The place of this account's data keeps changing; try again in a moment.")
        self.tenant_id = tenant_id


class ConcurrentUpdateError(ConflictError):
    """PostgreSQL could not order this transaction with others (40001, 40P01); nothing was written."""

    code = "concurrent-update"
    title = "Concurrent update"

    def __init__(self) -> None:
        super().__init__("Somebody else changed the same data at the same moment and nothing was written; try again.")


class CommitUnknownError(UnavailableError):
    code = "commit-unknown"
    title = "Outcome unknown"

    def __init__(self) -> None:
        super().__init__(
            "The database went away while this change was being committed; read the data again, or repeat the request "
            "with the same Idempotency-Key."
        )
