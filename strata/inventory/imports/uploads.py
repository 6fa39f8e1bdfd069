"""A request's body into a file, as it comes: never in memory as a whole, never more than the limit on disk."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from strata.inventory.imports.errors import UploadEmptyError, UploadTooLargeError


@asynccontextmanager
async def spooled(body: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[Path]:
    """The file is gone when the block ends; an import that died in it goes on with the next upload of the same file."""
    with tempfile.NamedTemporaryFile(prefix="strata-upload-") as file:
        size = 0
        async for chunk in body:
            size += len(chunk)
            if size > limit_bytes:
                raise UploadTooLargeError(limit_bytes)
            file.write(chunk)
        if not size:
            raise UploadEmptyError
        file.flush()
        yield Path(file.name)
