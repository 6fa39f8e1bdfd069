"""A fault is met once, and where it names a tenant, by no other's move."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from uuid import UUID

import pytest

from strata.migrator import faults
from strata.migrator.faults import InjectedError

OURS, ANOTHERS = UUID(int=1), UUID(int=2)


@pytest.fixture(autouse=True)
def nothing_armed() -> Iterator[None]:
    yield
    faults.disarm()


@pytest.mark.parametrize(
    ("armed", "by", "met"),
    [
        ("ready.begin=fail", ANOTHERS, True),
        (f"ready.begin@{OURS}=fail", ANOTHERS, False),
        (f"ready.done=kill,ready.begin@{OURS}=fail", OURS, True),
    ],
)
async def test_whose_move_meets_it(armed: str, by: UUID, met: bool) -> None:
    async def step() -> None:
        await faults.reached("ready.begin")

    faults.arm_from(armed)
    faults.works_for(by)
    if met:
        with pytest.raises(InjectedError):
            # As the machine does: a step is a task of its own.
            await asyncio.create_task(step())
    await step()


async def test_one_that_another_passed_is_still_there() -> None:
    faults.arm_from(f"ready.begin@{OURS}=fail")
    faults.works_for(ANOTHERS)
    await faults.reached("ready.begin")
    faults.works_for(OURS)
    with pytest.raises(InjectedError):
        await faults.reached("ready.begin")
