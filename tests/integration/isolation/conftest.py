"""Attackers and victims."""

from __future__ import annotations

import pytest

from strata.runtime import Runtime
from tests.builders.platform import Tenantry
from tests.builders.scenes import Meeting, Scene, new_scene

_MADE: dict[Meeting, Scene] = {}


@pytest.fixture(params=Meeting)
async def scene(request: pytest.FixtureRequest, runtime: Runtime, tenant_on: Tenantry) -> Scene:
    """Each meeting once; tests leave the victim's rows as they are, and look whether they did."""
    meeting = Meeting(request.param)
    if meeting not in _MADE:
        _MADE[meeting] = await new_scene(runtime, tenant_on, meeting)
    return _MADE[meeting]
