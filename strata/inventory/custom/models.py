from __future__ import annotations

from uuid import UUID

from sqlalchemy.orm import Mapped

from strata.tenancy.scoping import TenantModel


class CustomValue(TenantModel):
    """A custom value, to be found by: written by a trigger of the table that has it.

    An index on the document itself would not serve: what reads into jsonb is not leakproof, and row-level security keeps such
    conditions out of index scans.
    """

    __tablename__ = "custom_value"

    entity: Mapped[str]
    entity_id: Mapped[UUID]
    key: Mapped[str]
    value: Mapped[str]
