"""The ORM's layer of isolation: every statement gets the tenant's criterion, every new row its stamp.

It stands on its own: with row-level security switched off it still keeps tenants apart for whatever goes through the
ORM, and it gives the planner the bound tenant id that the policy's function hides from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import (
    BigInteger,
    BindParameter,
    DateTime,
    FetchedValue,
    Insert,
    MetaData,
    SelectBase,
    Text,
    Update,
    bindparam,
    event,
    func,
    text,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    ORMExecuteState,
    Session,
    UOWTransaction,
    mapped_column,
    with_loader_criteria,
)
from sqlalchemy.orm.attributes import instance_state

from strata.platform.ids import new_id
from strata.tenancy.catalog.tables import NAMING
from strata.tenancy.errors import CrossTenantWriteError

TENANT_PARAMETER = "strata_tenant_id"


class TenantModel(DeclarativeBase):
    """Base of every table that tenants' rows live in: PRIMARY KEY (tenant_id, id), the same on every tier.

    No schema is named: the transaction's search_path decides. Relationships are `lazy="raise"`.
    """

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: DateTime(timezone=True), str: Text, int: BigInteger}

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=-20, server_default=FetchedValue())
    id: Mapped[UUID] = mapped_column(
        primary_key=True, sort_order=-10, default=new_id, server_default=text("strata.uuidv7()")
    )


class Timestamped:
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), sort_order=90)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), sort_order=91)


# One option object for the life of the process: its cache key never changes, so statements compile once. The id itself
# arrives as a bound parameter, set per execution from the session.
_CRITERION = with_loader_criteria(
    TenantModel,
    # The name stands in the lambda as a literal: SQLAlchemy would turn a global into a bound value.
    lambda model: model.tenant_id == bindparam("strata_tenant_id"),
    include_aliases=True,
)


# Statements that stand in modules are scoped once: the copy keeps its cache key, which a new copy would work out anew.
_SCOPED: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def install(session_class: type[Session]) -> None:
    """Put both halves of the layer on a session class; its sessions carry `info["tenant_id"]`."""
    event.listen(session_class, "do_orm_execute", _scope_statement)
    event.listen(session_class, "before_flush", _stamp_rows)
    event.listen(session_class, "before_attach", _refuse_strangers)


def _scope_statement(state: ORMExecuteState) -> None:
    tenant_id: UUID = state.session.info["tenant_id"]
    if state.is_insert and state.is_orm_statement:
        _stamp_insert(state, tenant_id)
        return
    # Not only ORM statements: select(exists().where(Product.sku == …)) is none by itself and has one inside.
    if not (state.is_orm_statement or isinstance(state.statement, SelectBase)):
        return
    if isinstance(state.statement, Update) and _names_tenant(state.statement):
        raise CrossTenantWriteError(_STAYS)
    parameters = state.parameters
    if state.is_update and isinstance(parameters, Sequence):
        # By primary key, which takes no criterion: the key is completed with the session's tenant instead.
        state.parameters = [{**each, "tenant_id": tenant_id} for each in parameters]
        return
    statement = state.statement
    scoped = _SCOPED.get(statement)
    if scoped is None:
        scoped = _SCOPED[statement] = statement.options(_CRITERION)
    state.statement = scoped
    if isinstance(parameters, Sequence):
        state.parameters = [{**each, TENANT_PARAMETER: tenant_id} for each in parameters]
    else:
        state.parameters = {**(parameters or {}), TENANT_PARAMETER: tenant_id}


# SQLAlchemy has no public way to see what an INSERT or UPDATE sets.
# ruff: noqa: SLF001

_STAYS = "tenant_id cannot be set: a row stays with its tenant."
_LISTED = "insert().values([...]) cannot be stamped; pass the rows as the second argument of session.execute()"


def _stamp_insert(state: ORMExecuteState, tenant_id: UUID) -> None:
    statement = state.statement
    if not isinstance(statement, Insert):
        return
    conflict = getattr(statement, "_post_values_clause", None)
    if "tenant_id" in dict(getattr(conflict, "update_values_to_set", None) or {}):
        raise CrossTenantWriteError(_STAYS)
    if statement._multi_values:
        raise CrossTenantWriteError(_LISTED)
    parameters = state.parameters
    if isinstance(parameters, Sequence):
        state.parameters = [{**each, "tenant_id": tenant_id} for each in parameters]
    elif parameters:
        state.parameters = {**parameters, "tenant_id": tenant_id}
    elif statement.select is None:
        statement = statement.values(tenant_id=tenant_id)
    elif "tenant_id" in (statement._select_names or ()):
        # Left out, the column's default fills it in.
        raise CrossTenantWriteError(_STAYS)
    if statement.select is not None or any(not isinstance(each, BindParameter) for each in _values(statement).values()):
        # What is selected within is scoped too; by value, for the parameters of an INSERT are its columns.
        statement = statement.options(
            with_loader_criteria(TenantModel, lambda model: model.tenant_id == tenant_id, include_aliases=True)
        )
    state.statement = statement


def _values(statement: Insert | Update) -> Mapping[Any, Any]:
    return statement._values or {}


def _names_tenant(statement: Update) -> bool:
    return any(getattr(column, "key", column) == "tenant_id" for column in _values(statement))


def _refuse_strangers(session: Session, instance: object) -> None:
    """A row that another tenant's session loaded stays out: refreshing it takes no criterion."""
    key = instance_state(instance).key
    if isinstance(instance, TenantModel) and key is not None and key[1][0] != session.info["tenant_id"]:
        raise CrossTenantWriteError(_stranger(instance))


def _stamp_rows(session: Session, _context: UOWTransaction, _instances: object) -> None:
    tenant_id: UUID = session.info["tenant_id"]
    for row in session.new:
        if isinstance(row, TenantModel):
            row.tenant_id = tenant_id
    for row in [*session.dirty, *session.deleted]:
        if isinstance(row, TenantModel) and row.tenant_id != tenant_id:
            raise CrossTenantWriteError(_stranger(row))


def _stranger(row: TenantModel) -> str:
    return f"A {type(row).__name__} of another tenant cannot be used in this session."
