"""An uploaded file in the tenant's own tables: any worker can read it, it moves with the tenant and dies with it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from sqlalchemy import LargeBinary, bindparam, delete, exists, select, text

from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.models import ImportChunk
from strata.inventory.storage import admit_file
from strata.tenancy.context import TenantContext
from strata.tenancy.session import TenantReadSession, Tenants, TenantSession

CHUNK_BYTES = 1024 * 1024

_ADD = text(
    "INSERT INTO import_chunk (tenant_id, run_id, number, content) VALUES (:tenant, :run, :number, :content)"
).bindparams(bindparam("content", type_=LargeBinary))


async def keep(session: TenantSession, run_id: UUID, file: SourceFile, storage_limit_mb: int | None) -> None:
    """Instead of whatever was kept for the run. A chunk at a time is in memory. Raises StorageFullError."""
    await drop(session, run_id)
    await admit_file(session, file.path.stat().st_size, storage_limit_mb)
    with file.path.open("rb") as source:
        number = 0
        while content := await asyncio.to_thread(source.read, CHUNK_BYTES):
            parameters = {"tenant": session.info["tenant_id"], "run": run_id, "number": number, "content": content}
            await session.execute(_ADD, parameters)
            number += 1
    file.check_unchanged()


async def drop(session: TenantSession, run_id: UUID) -> None:
    await session.execute(delete(ImportChunk).where(ImportChunk.run_id == run_id))


async def is_kept(session: TenantReadSession, run_id: UUID) -> bool:
    return bool(await session.scalar(select(exists().where(ImportChunk.run_id == run_id))))


@asynccontextmanager
async def fetched(tenants: Tenants, context: TenantContext, run_id: UUID, name: str) -> AsyncIterator[SourceFile]:
    """On this worker's disk while the block lasts."""
    with tempfile.NamedTemporaryFile(prefix="strata-import-") as file:
        number = 0
        while (content := await _chunk(tenants, context, run_id, number)) is not None:
            await asyncio.to_thread(file.write, content)
            number += 1
        file.flush()
        source = SourceFile(Path(file.name), name)
        try:
            yield source
        finally:
            source.give_up()


async def _chunk(tenants: Tenants, context: TenantContext, run_id: UUID, number: int) -> bytes | None:
    wanted = select(ImportChunk.content).where(ImportChunk.run_id == run_id, ImportChunk.number == number)
    async with tenants.reading(context) as session:
        return await session.scalar(wanted)
