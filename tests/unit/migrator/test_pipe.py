"""What waits between the connection that is copied from and the one that is copied to."""

from __future__ import annotations

import asyncio

import pytest

from strata.migrator.copier import PIPE_BYTES, _Pipe


@pytest.mark.parametrize(("chunk_bytes", "waiting"), [(PIPE_BYTES // 4, 4), (5 * PIPE_BYTES, 1)])
async def test_a_sender_is_held_back_until_some_of_it_is_taken(chunk_bytes: int, waiting: int) -> None:
    async with asyncio.timeout(60) as deadline:
        pipe = _Pipe(deadline)
        for _ in range(waiting):
            await asyncio.wait_for(pipe.put(b"x" * chunk_bytes), 1)
        held_back = asyncio.create_task(pipe.put(b"y" * chunk_bytes))
        await asyncio.sleep(0.05)
        assert not held_back.done()
        taking = aiter(pipe)
        assert await anext(taking) == b"x" * chunk_bytes
        await held_back
        pipe.end()
        taken = [len(chunk) async for chunk in taking]
    assert taken == [chunk_bytes] * waiting
    assert pipe.size_bytes == (waiting + 1) * chunk_bytes
