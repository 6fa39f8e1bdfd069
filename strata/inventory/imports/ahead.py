"""Parsing and posting at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import TypeVar

T = TypeVar("T")


async def ahead(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """Makes the next item in a thread while the last is dealt with: PostgreSQL and we work at the same time."""
    upcoming = asyncio.create_task(asyncio.to_thread(next, items, None))
    try:
        # Shielded: a thread cannot be cancelled, only waited for.
        while (item := await asyncio.shield(upcoming)) is not None:
            upcoming = asyncio.create_task(asyncio.to_thread(next, items, None))
            yield item
    finally:
        # It reads a file that the caller closes next. Whether it failed is of no interest any more.
        await asyncio.gather(upcoming, return_exceptions=True)
