from __future__ import annotations

import pytest

from strata.app import StrataApp, create_app
from strata.runtime import Runtime


@pytest.fixture(scope="session")
def whole_app(runtime: Runtime) -> StrataApp:
    """Everything Strata serves, pages and API."""
    return create_app(runtime)
