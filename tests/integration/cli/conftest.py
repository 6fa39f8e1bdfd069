"""The commands, pointed at the platform that all tests share."""

from __future__ import annotations

import pytest

from strata.runtime import Runtime
from tests.builders.command import Command, environment_for
from tests.builders.platform import Platform


@pytest.fixture
def strata(
    platform: Platform, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`said = await strata("tenant", "list")`, with servers named by the environment."""
    for name, value in environment_for(platform).items():
        monkeypatch.setenv(name, value)
    return Command(capsys)
