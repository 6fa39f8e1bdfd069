"""Which events a snapshot of the tables has seen already.

Rows made from the ledger contain what was committed before; events of the same work may still be on their way. An event
carries its transaction's id, and a snapshot says of every transaction whether it saw it.
"""

from __future__ import annotations

import msgspec

from strata.tenancy.events.types import Delivery


class Basis(msgspec.Struct, frozen=True):
    epoch: int
    """Transaction ids belong to a cluster: with another epoch they are another one's."""
    oldest: int
    """All below it had ended."""
    next: int
    """None from it on had."""
    running: frozenset[int]

    @classmethod
    def parse(cls, epoch: int, snapshot: str) -> Basis:
        """`snapshot` as PostgreSQL writes a pg_snapshot: xmin:xmax:xip,xip…"""
        oldest, next_, running = snapshot.split(":")
        return cls(epoch, int(oldest), int(next_), frozenset(int(each) for each in running.split(",") if each))

    def saw(self, delivery: Delivery) -> bool:
        """Whether the event's work was committed when the snapshot was taken."""
        if delivery.place.epoch != self.epoch:
            # All of an older epoch's writers had ended before the first of a newer one began.
            return delivery.place.epoch < self.epoch
        transaction = delivery.transaction_id
        return transaction < self.oldest or (transaction < self.next and transaction not in self.running)
