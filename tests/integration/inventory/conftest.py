from __future__ import annotations

import pytest

from strata.app import StrataApp, create_app
from strata.inventory.routes import ROUTES
from strata.runtime import Runtime


@pytest.fixture(scope="session")
def inventory_app(runtime: Runtime) -> StrataApp:
    return create_app(runtime, ROUTES)
