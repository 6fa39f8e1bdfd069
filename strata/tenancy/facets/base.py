"""A facet: one domain's share of the TenantContext, without tenancy knowing the domain.

A facet gives a scalar SQL expression that yields jsonb (or NULL) for the tenant row of the enclosing query, and turns
that document into a frozen struct with defaults. All facets together travel in the one query that builds a context.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec
from sqlalchemy import ColumnElement, select

from strata.tenancy.catalog.tables import TenantDocumentRow, TenantRow

T = TypeVar("T", bound=msgspec.Struct)


class Facet(Generic[T]):
    """The common case: a sparse document in `tenant_document`, decoded into `struct`."""

    def __init__(self, name: str, struct: type[T]) -> None:
        self.name = name
        self.struct = struct

    def expression(self) -> ColumnElement[object]:
        return (
            select(TenantDocumentRow.document)
            .where(TenantDocumentRow.tenant_id == TenantRow.id, TenantDocumentRow.facet == self.name)
            .correlate(TenantRow)
            .scalar_subquery()
        )

    def decode(self, document: object, plan: str) -> T:  # noqa: ARG002 - a facet whose defaults depend on the plan overrides this
        return msgspec.convert(document or {}, self.struct)
