"""The settings of all tenants, in the catalog: read with defaults, changed under an ETag, with history and undo."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from strata.platform.errors import NotFoundError
from strata.platform.etags import check_if_match, etag
from strata.platform.ids import new_id
from strata.platform.keys.port import KeyPort
from strata.platform.paging import Keyset, Page, Paging
from strata.tenancy.audit.origin import current_origin
from strata.tenancy.catalog.audit import record
from strata.tenancy.catalog.tables import TenantRow
from strata.tenancy.errors import UnknownTenantError
from strata.tenancy.settings.errors import (
    NoSuchChangeError,
    NothingToUndoError,
    PreconditionRequiredError,
    SettingsRefusedError,
)
from strata.tenancy.settings.merging import Document, difference, merged, pointer
from strata.tenancy.settings.model import SettingsModel
from strata.tenancy.settings.sections import check_url
from strata.tenancy.settings.tables import SettingsChangeRow, TenantSecretRow, TenantSettingsRow

_REFERENCE = "secret:"
_HISTORY = Keyset(SettingsChangeRow.number, descending=True)


class KeptSettings(msgspec.Struct, frozen=True):
    version: int
    document: dict[str, Any]
    """What was set, and nothing else."""
    settings: dict[str, Any]
    """With the defaults."""

    @property
    def etag(self) -> str:
        return etag(self.version)


class SettingsChange(msgspec.Struct, frozen=True):
    number: int
    at: datetime
    actor: str
    source: str | None
    patch: dict[str, Any]
    """The merge patch that it came to."""
    undoes: int | None


class SettingsBook:
    def __init__(
        self, catalog: AsyncEngine, keys: KeyPort, model: SettingsModel, announce: Callable[[UUID], Awaitable[None]]
    ) -> None:
        self._sessions = async_sessionmaker(catalog, expire_on_commit=False)
        self._keys = keys
        self._announce = announce
        self.model = model

    async def of(self, tenant_id: UUID) -> KeptSettings:
        async with self._sessions() as session:
            row = await session.get(TenantSettingsRow, tenant_id)
        return self._kept(row)

    async def patch(
        self, tenant_id: UUID, patch: object, *, if_match: str | None, actor: str, staff: bool
    ) -> KeptSettings:
        """Merge the patch (RFC 7396) into what the tenant has set.

        Errors: SettingsRefusedError, StaffOnlySettingError, PreconditionRequiredError, PreconditionFailedError.
        """
        if not isinstance(patch, dict):
            raise SettingsRefusedError([{"path": "", "code": "object", "message": "a merge patch is a JSON object"}])
        if not staff:
            self.model.refuse_staff_only(patch)
        async with self._sessions.begin() as session:
            row = await self._locked(session, tenant_id)
            if if_match is None:
                raise PreconditionRequiredError(etag(row.version))
            check_if_match(if_match, row.version)
            sealed = await self._sealed(session, tenant_id, patch, row.document)
            changed = await self._write(session, row, merged(row.document, sealed), actor)
        if changed:
            await self._announce(tenant_id)
        return self._kept(row)

    async def undo(self, tenant_id: UUID, number: int, *, actor: str, staff: bool) -> KeptSettings:
        """Take back what one change did, and leave what others have changed since."""
        async with self._sessions.begin() as session:
            row = await self._locked(session, tenant_id)
            change = await session.get(SettingsChangeRow, (tenant_id, number))
            if change is None:
                raise NoSuchChangeError(number)
            patch = difference(change.after, change.before)
            if not staff:
                self.model.refuse_staff_only(patch)
            if not await self._write(session, row, merged(row.document, patch), actor, undoes=number):
                raise NothingToUndoError(number)
        await self._announce(tenant_id)
        return self._kept(row)

    async def history(self, tenant_id: UUID, paging: Paging) -> Page[SettingsChange]:
        """The newest first."""
        statement = select(
            SettingsChangeRow.number,
            SettingsChangeRow.at,
            SettingsChangeRow.actor,
            SettingsChangeRow.source,
            SettingsChangeRow.before,
            SettingsChangeRow.after,
            SettingsChangeRow.undoes,
        ).where(SettingsChangeRow.tenant_id == tenant_id)
        async with self._sessions() as session:
            rows = (await session.execute(_HISTORY.select_page(statement, paging))).all()
        return _HISTORY.page(
            rows,
            paging,
            item=lambda row: SettingsChange(
                row.number, row.at, row.actor, row.source, difference(row.before, row.after), row.undoes
            ),
            position=lambda row: (row.number,),
        )

    async def secret(self, tenant_id: UUID, section: str, member: str) -> str | None:
        """What a secret setting hides, for whoever sends there; None: it is not set."""
        kept = await self.of(tenant_id)
        reference = kept.settings[section][member]
        if reference is None:
            return None
        async with self._sessions() as session:
            row = await session.get(TenantSecretRow, UUID(reference.removeprefix(_REFERENCE)))
        if row is None or row.tenant_id != tenant_id:
            message = f"The secret behind {section}.{member} is gone; set it again."
            raise NotFoundError(message)
        return (await self._keys.unseal(row.sealed, _purpose(tenant_id, section, member))).decode()

    def _kept(self, row: TenantSettingsRow | None) -> KeptSettings:
        document = {} if row is None else row.document
        return KeptSettings(0 if row is None else row.version, document, self.model.effective(document))

    @staticmethod
    async def _locked(session: AsyncSession, tenant_id: UUID) -> TenantSettingsRow:
        # The tenant first, as whoever changes it does: a trigger raises its version.
        if await session.scalar(select(TenantRow.id).where(TenantRow.id == tenant_id).with_for_update()) is None:
            raise UnknownTenantError(str(tenant_id))
        row = await session.get(TenantSettingsRow, tenant_id, with_for_update=True)
        return row or TenantSettingsRow(tenant_id=tenant_id, document={}, version=0)

    async def _write(
        self, session: AsyncSession, row: TenantSettingsRow, wanted: Document, actor: str, undoes: int | None = None
    ) -> bool:
        after = self.model.checked(wanted)
        before = row.document
        if after == before:
            return False
        row.document, row.version, row.updated_at = after, row.version + 1, datetime.now(UTC)
        session.add(row)
        session.add(
            SettingsChangeRow(
                tenant_id=row.tenant_id,
                number=row.version,
                actor=actor,
                source=current_origin().source,
                before=before,
                after=after,
                undoes=undoes,
            )
        )
        detail: dict[str, object] = {"number": row.version, "patch": difference(before, after), "undoes": undoes}
        slug = await session.scalar(select(TenantRow.slug).where(TenantRow.id == row.tenant_id))
        record(session, actor, "settings.change", slug or "", tenant_id=row.tenant_id, detail=detail)
        return True

    async def _sealed(
        self, session: AsyncSession, tenant_id: UUID, patch: Document, current: Mapping[str, Any]
    ) -> Document:
        """The patch with each new secret sealed and referred to. What is sent back as it was read stays."""
        result = dict(patch)
        for section, member in sorted(self.model.secrets):
            members = patch.get(section)
            if not isinstance(members, dict) or members.get(member) is None:
                continue
            value = members[member]
            if value == current.get(section, {}).get(member):
                continue
            _check_secret(value, pointer((section, member)))
            row = TenantSecretRow(
                id=new_id(),
                tenant_id=tenant_id,
                name=f"{section}.{member}",
                sealed=await self._keys.seal(value.encode(), _purpose(tenant_id, section, member)),
            )
            await session.execute(
                insert(TenantSecretRow).values(id=row.id, tenant_id=tenant_id, name=row.name, sealed=row.sealed)
            )
            result[section] = {**result[section], member: f"{_REFERENCE}{row.id}"}
        return result


_TEXT = TypeAdapter(str)


def _check_secret(value: object, path: str) -> None:
    try:
        check_url(_TEXT.validate_python(value, strict=True))
    except (ValidationError, ValueError):
        message = "give an address that begins with https://"
        raise SettingsRefusedError([{"path": path, "code": "bad-address", "message": message}]) from None


def _purpose(tenant_id: UUID, section: str, member: str) -> str:
    return f"tenant/{tenant_id}/settings/{section}/{member}"
