"""Writing a tenant's audit: remembered while the transaction works, and sent with its COMMIT, in the same message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import msgspec
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from strata.platform.ids import new_id
from strata.tenancy.audit.origin import current_origin

if TYPE_CHECKING:
    from strata.tenancy.session import TenantSession

_PENDING = "audit_pending"
_MARKS = "audit_marks"
_LONGEST = 2000

# All entries in one statement, in their order. The simple protocol takes no parameters: the entries travel as hexadecimal
# digits, in which there is nothing to escape. E'' reads the same whatever standard_conforming_strings was left at.
_INSERT = (
    "INSERT INTO audit_entry (id, actor, action, subject, source, authentication, request, detail) "
    "SELECT e.id, e.actor, e.action, e.subject, e.source, e.authentication, e.request, e.detail "
    "FROM jsonb_to_recordset(convert_from(E'\\\\x{digits}'::bytea, 'UTF8')::jsonb) AS e ("
    "id uuid, actor text, action text, subject text, source text, authentication text, request text, detail jsonb)"
)
NO_ENTRIES = _INSERT.format(digits=b"[]".hex())
"""What an audited transaction sends, with no entry: for a back end to learn it."""
_encode = msgspec.json.Encoder().encode


class Entry(msgspec.Struct, frozen=True):
    id: UUID
    actor: str
    action: str
    subject: str
    source: str | None
    authentication: str | None
    request: str | None
    detail: dict[str, Any]


def record(session: TenantSession, action: str, subject: str, **detail: object) -> None:
    """Have the session's transaction write an entry when it commits; rolled back, there is none.

    `action` reads noun.verb: product.change. `subject` is what a person knows it by: a SKU, a code. `detail` is what JSON
    can say, and holds no secret: the tenant's people read it. Costs no round trip.
    """
    origin = current_origin()
    entry = Entry(
        new_id(),
        _clean(origin.actor),
        action,
        _clean(subject),
        origin.source,
        origin.authentication,
        origin.request,
        detail,
    )
    session.info.setdefault(_PENDING, []).append(entry)


def _clean(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")[:_LONGEST]


def pending_statement(session: AsyncSession) -> str | None:
    """What writes the session's entries, and forgets them; None: there are none."""
    entries: list[Entry] | None = session.info.pop(_PENDING, None)
    if not entries:
        return None
    # PostgreSQL's text holds everything but U+0000, which JSON can spell.
    return _INSERT.format(digits=_encode(entries).replace(rb"\u0000", rb"\ufffd").hex())


def follow_savepoints(session_class: type[Session]) -> None:
    """What is rolled back to a savepoint takes the entries made since along."""
    event.listen(session_class, "after_transaction_create", _mark)
    event.listen(session_class, "after_soft_rollback", _drop)


def _mark(session: Session, transaction: SessionTransaction) -> None:
    if transaction.nested:
        marks = session.info.setdefault(_MARKS, {})
        marks[id(transaction)] = len(session.info.get(_PENDING, ()))


def _drop(session: Session, transaction: SessionTransaction) -> None:
    if transaction.nested:
        pending = cast("list[Entry]", session.info.get(_PENDING, []))
        del pending[session.info.get(_MARKS, {}).get(id(transaction), 0) :]
