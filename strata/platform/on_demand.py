"""The one way in which Strata imports a module late: by name, when it is first needed.

Importing all of Strata and its libraries takes four times as long as a command that finds nothing to do. So what only
some commands need, or only a failure, stands here as «module:attribute», and everything else is imported at the top of its
file. Layers hold for these names as for imports (tests/unit/cli/test_start_up.py resolves each).
"""

from __future__ import annotations

import importlib
from typing import Any


def loaded(name: str) -> Any:  # noqa: ANN401 - whatever stands there; the caller says what that is
    """`loaded("strata.platform.keys.vault:VaultTransitKeyPort")`."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
