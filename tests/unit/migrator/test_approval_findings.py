"""What a fail-over leaves in a cell, row by row, held against the catalog."""

from __future__ import annotations

from uuid import UUID

import pytest

from strata.migrator.approval.findings import Fence, Known, Standing, behind, compare
from strata.tenancy.model import FenceState, Holder, TenantStatus

HERE, ELSEWHERE = "cell-2", "cell-1"
TENANT = UUID(int=7)
MOVE = {TENANT: (Holder.MOVE, "0190-move")}
ACTIVE, MOVING, MOVED = FenceState.ACTIVE, FenceState.MOVING, FenceState.MOVED


def known(
    cell: str | None, epoch: int = 5, status: TenantStatus = TenantStatus.ACTIVE, counted: int = 0, audited: int = 0
) -> Known:
    return Known(TENANT, "acme", status, cell, "shared" if cell else None, epoch, counted, audited)


def fence(epoch: int, state: FenceState = ACTIVE, schema: str = "shared") -> Fence:
    return Fence(epoch, state, schema)


@pytest.mark.parametrize(
    ("tenant", "row", "claims", "standing", "becomes"),
    [
        (known(HERE), fence(5), {}, Standing.SERVED, None),
        # It lives here, and is not let in.
        (known(HERE), None, {}, Standing.LOST, None),
        (known(HERE), fence(4), {}, Standing.LOST, fence(4, MOVED)),
        (known(HERE), fence(4, MOVED), {}, Standing.LOST, None),
        (known(HERE), fence(4, schema="t_x"), MOVE, Standing.LOST, fence(4, MOVED, "t_x")),
        # A cut-over was called off, of which the standby has not heard.
        (known(HERE), fence(5, MOVING), {}, Standing.REOPENED, fence(5)),
        (known(HERE), fence(9, schema="t_x"), {}, Standing.REOPENED, fence(5)),
        (known(HERE), fence(5, MOVING), MOVE, Standing.MOVING, None),
        (known(HERE), fence(9, schema="t_x"), MOVE, Standing.MOVING, None),
        # Half made or half deleted: the sweep's.
        (known(HERE, status=TenantStatus.PROVISIONING), None, {}, Standing.SWEPT, None),
        (known(HERE, status=TenantStatus.CLOSING), fence(4), {}, Standing.SWEPT, None),
        # It lives elsewhere.
        (known(ELSEWHERE), fence(4), {}, Standing.SHUT, fence(4, MOVED)),
        (known(ELSEWHERE), fence(4, MOVED), {}, Standing.LEFT_BEHIND, None),
        (known(ELSEWHERE), fence(9), {}, Standing.SHUT, fence(9, MOVED)),
        (known(ELSEWHERE), fence(4), MOVE, Standing.SHUT, fence(4, MOVED)),
        (known(ELSEWHERE), fence(9), MOVE, Standing.MOVING, None),
        # It lives nowhere, or nobody knows it.
        (known(None, 0, TenantStatus.CLOSED), fence(4), {}, Standing.SHUT, fence(4, MOVED)),
        (None, fence(4), {}, Standing.SHUT, fence(4, MOVED)),
    ],
)
def test_a_fence_is_opened_only_where_the_catalog_says(
    tenant: Known | None,
    row: Fence | None,
    claims: dict[UUID, tuple[Holder, str]],
    standing: Standing,
    becomes: Fence | None,
) -> None:
    tenants = {} if tenant is None else {TENANT: tenant}
    [found] = compare(HERE, tenants, {} if row is None else {TENANT: row}, claims)
    assert (found.standing, found.becomes) == (standing, becomes)
    if found.becomes is not None and found.becomes.state is ACTIVE:
        assert tenant is not None
        assert (tenant.cell, tenant.epoch) == (HERE, found.becomes.epoch)


def test_only_what_the_catalog_knows_to_have_gone_is_removed() -> None:
    for tenant, claims, clear in (
        (known(ELSEWHERE), {}, True),
        (known(ELSEWHERE), MOVE, False),
        (known(None, 0, TenantStatus.CLOSED), {}, True),
        (known(HERE), {}, False),
    ):
        [found] = compare(HERE, {TENANT: tenant}, {TENANT: fence(4)}, claims)
        assert found.clear is clear
    [stranger] = compare(HERE, {}, {TENANT: fence(4)}, {})
    assert not stranger.clear
    assert "restored" in stranger.sentence


def test_who_is_lost_is_told_where_the_other_home_is() -> None:
    [moved] = compare(HERE, {TENANT: known(HERE)}, {}, MOVE)
    assert "strata migrate accept-loss 0190-move" in moved.sentence
    [made] = compare(HERE, {TENANT: known(HERE)}, {}, {})
    assert "strata tenant delete acme" in made.sentence
    [older] = compare(HERE, {TENANT: known(HERE)}, {TENANT: fence(4, schema="t_x")}, {})
    assert "epoch 4 («t_x», which is kept)" in older.sentence


def test_older_data_is_told_by_what_the_catalog_has_counted() -> None:
    assert behind(known(HERE, counted=10, audited=3), HERE, position=10, audited=3) is None
    late = behind(known(HERE, counted=12, audited=5), HERE, position=10, audited=3)
    assert late is not None
    assert (late.events, late.audit_entries) == (2, 2)
    assert "2 positions of its events and 2 entries of its audit" in late.sentence
