"""A facet: one domain's share of the TenantContext, without tenancy knowing the domain.

A facet gives a scalar SQL expression that yields jsonb (or NULL) for the tenant row of the enclosing query, and turns
that document into a frozen struct with defaults. All facets together travel in the one query that builds a context.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import msgspec
from sqlalchemy import ColumnElement, select

from strata.platform.errors import InvalidInputError
from strata.tenancy.catalog.tables import TenantDocumentRow, TenantRow
from strata.tenancy.plans import Plan

Shown = TypeVar("Shown", bound=msgspec.Struct)


class Facet(ABC, Generic[Shown]):
    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def expression(self) -> ColumnElement[object]:
        """What it keeps of the tenant of the enclosing query, as one value of jsonb."""

    @abstractmethod
    def decode(self, document: object, plan: Plan) -> Shown:
        """What the context shows. Lenient about members it does not know: a newer version may have written them."""


class PlainFacet(Facet[Shown]):
    """A sparse document in `tenant_document`, shown as it is kept, with the struct's defaults for what is left out."""

    def __init__(self, name: str, kept: type[Shown]) -> None:
        super().__init__(name)
        self.kept = kept

    def expression(self) -> ColumnElement[object]:
        return (
            select(TenantDocumentRow.document)
            .where(TenantDocumentRow.tenant_id == TenantRow.id, TenantDocumentRow.facet == self.name)
            .correlate(TenantRow)
            .scalar_subquery()
        )

    def decode(self, document: object, plan: Plan) -> Shown:  # noqa: ARG002 - the same on every plan
        return msgspec.convert(document or {}, self.kept)

    def check(self, document: object) -> dict[str, object]:
        """The document, if it may be kept for a tenant; InvalidInputError names the member that may not."""
        if not isinstance(document, dict):
            raise _invalid("", f"{self.name} is a JSON object")
        known = self.kept.__struct_fields__
        for member in document:
            if member not in known:
                raise _invalid(f"/{member}", f"{self.name} has no such member; it has {', '.join(known)}")
        try:
            msgspec.convert(document, self.kept)
        except msgspec.ValidationError as error:
            # msgspec says where at the end: «Expected `str`, got `int` - at `$.locale`».
            what, _, where = str(error).partition(" - at `$.")
            raise _invalid(f"/{where.rstrip('`')}", what) from None
        return document


def _invalid(path: str, message: str) -> InvalidInputError:
    where = path or "The document"
    return InvalidInputError(f"{where}: {message}.", extra={"errors": [{"path": path, "message": message}]})
