from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from strata.inventory.aggregates.basis import Basis
from strata.inventory.events import ProductDeleted
from strata.tenancy.events.types import Delivery, Place

_SNAPSHOT = "100:110:103,107"
_ID = UUID(int=1)


@pytest.mark.parametrize(
    ("epoch", "transaction", "seen"),
    [
        (2, 99, True),
        (2, 100, True),
        (2, 103, False),
        (2, 104, True),
        (2, 107, False),
        (2, 109, True),
        (2, 110, False),
        (2, 500, False),
        (1, 500, True),
        (3, 1, False),
    ],
)
def test_a_snapshot_tells_of_every_transaction_whether_it_saw_it(epoch: int, transaction: int, seen: bool) -> None:
    delivery = Delivery(_ID, _ID, Place(epoch, 1), datetime.now(UTC), transaction, ProductDeleted(_ID, "x"))
    assert Basis.parse(2, _SNAPSHOT).saw(delivery) is seen


def test_nobody_may_be_running() -> None:
    assert Basis.parse(1, "7:7:") == Basis(1, 7, 7, frozenset())
