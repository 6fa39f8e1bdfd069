"""The catalog's part of upgrades: one at a time, claims against moves, and why a schema was left behind.

What a schema *has* stands in its cell (`strata.revision`), written in the transaction that made it so: nothing can
part the two. What went wrong stands in the catalog: the cell's transaction was rolled back, and the cell may be the
thing that does not answer; and one query shows staff all of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.platform.ids import new_id
from strata.tenancy.catalog.tables import (
    CellRow,
    EntitlementRow,
    PlacementRow,
    UpgradeTroubleRow,
)
from strata.tenancy.entitlements.grants import GrantKind
from strata.tenancy.model import Holder
from strata.tenancy.provisioning.exclusion import Claim, claim_free, release, schema_subject
from strata.tenancy.provisioning.upgrade_report import Outcome, OutcomeState

if TYPE_CHECKING:
    from strata.tenancy.provisioning.upgrade_cells import Lag

CANARY_FEATURE = "upgrade-canary"
"""A tenant to which staff gave this feature goes first."""

_AT_ONCE = 1000
"""Rows in one statement, which takes 32,767 parameters at most."""


class Resident(msgspec.Struct, frozen=True):
    """Who lives in a schema."""

    tenants: int
    marked: bool
    """One of them is a canary by staff's choice."""


class UpgradeLedger:
    def __init__(self, catalog: AsyncEngine) -> None:
        self._catalog = catalog
        self._run = str(new_id())

    async def residents(self) -> dict[tuple[str, str], Resident]:
        """By cell and schema."""
        marked = (
            select(EntitlementRow.tenant_id)
            .where(
                EntitlementRow.kind == GrantKind.FEATURE,
                EntitlementRow.name == CANARY_FEATURE,
                EntitlementRow.given,
                EntitlementRow.ended_at.is_(None),
            )
            .subquery()
        )
        async with self._catalog.connect() as connection:
            rows = await connection.execute(
                select(CellRow.name, PlacementRow.schema_name, func.count(), func.count(marked.c.tenant_id))
                .join(CellRow, CellRow.id == PlacementRow.cell_id)
                .outerjoin(marked, marked.c.tenant_id == PlacementRow.tenant_id)
                .group_by(CellRow.name, PlacementRow.schema_name)
            )
            return {(cell, schema): Resident(tenants, count > 0) for cell, schema, tenants, count in rows}

    @asynccontextmanager
    async def claimed(self, batch: Sequence[Lag]) -> AsyncIterator[dict[str, Claim]]:
        """Hold these schemas for the block, against moves; yields those that somebody else holds, by name.

        Control schemas are not claimed: whatever a revision does to them, a move must be able to go on over it.
        """
        subjects = {
            schema_subject(lag.cell.name, lag.line.schema): lag.line.schema for lag in batch if not lag.is_control
        }
        if not subjects:
            yield {}
            return
        async with self._catalog.begin() as connection:
            held = await claim_free(connection, Holder.UPGRADE, self._run, subjects)
        try:
            yield {subjects[subject]: claim for subject, claim in held.items()}
        finally:
            async with self._catalog.begin() as connection:
                await release(connection, Holder.UPGRADE, self._run, subjects)

    async def forget_all_but(self, lagging: AbstractSet[tuple[str, str]]) -> None:
        """Drop what is no trouble any more: brought to head by another way, or deleted."""
        await self._forget(lambda known: known - lagging)

    async def note(self, outcomes: Sequence[Outcome]) -> None:
        """Remember what went wrong, and forget what went well after all."""
        well = [(each.cell, each.schema) for each in outcomes if each.state is OutcomeState.UPGRADED]
        ill = [
            {
                "cell": each.cell,
                "schema_name": each.schema,
                "state": each.state.value,
                "revision": each.head,
                "attempts": each.attempts,
                "error": each.error or "",
            }
            for each in outcomes
            if each.state in {OutcomeState.FAILED, OutcomeState.DEFERRED}
        ]
        await self._forget(lambda known: known.intersection(well))
        async with self._catalog.begin() as connection:
            for start in range(0, len(ill), _AT_ONCE):
                upsert = insert(UpgradeTroubleRow).values(ill[start : start + _AT_ONCE])
                new = upsert.excluded
                await connection.execute(
                    upsert.on_conflict_do_update(
                        index_elements=["cell", "schema_name"],
                        set_={
                            "state": new.state,
                            "revision": new.revision,
                            "attempts": UpgradeTroubleRow.attempts + new.attempts,
                            "error": new.error,
                            "last_at": func.now(),
                        },
                    )
                )

    async def _forget(self, which: Callable[[set[tuple[str, str]]], set[tuple[str, str]]]) -> None:
        key = tuple_(UpgradeTroubleRow.cell, UpgradeTroubleRow.schema_name)
        async with self._catalog.begin() as connection:
            rows = await connection.execute(select(UpgradeTroubleRow.cell, UpgradeTroubleRow.schema_name))
            gone = list(which({(cell, schema) for cell, schema in rows}))
            for start in range(0, len(gone), _AT_ONCE):
                await connection.execute(delete(UpgradeTroubleRow).where(key.in_(gone[start : start + _AT_ONCE])))
