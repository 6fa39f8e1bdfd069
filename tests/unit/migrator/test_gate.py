"""How old a transaction a cut-over puts up with, the longer it has waited for better."""

from __future__ import annotations

import pytest

from strata.migrator.steps.approach import allowed_age_ms
from strata.platform.settings import MigratorSettings

SETTINGS = MigratorSettings(holder_age_ms=100, holder_patience_s=5, lock_deadline_ms=300)


@pytest.mark.parametrize(
    ("waited_s", "allowed_ms"), [(0, 100), (4.9, 100), (5, 200), (9.9, 200), (10, 300), (3600, 300)]
)
def test_it_grows_up_to_what_the_lock_waits_for(waited_s: float, allowed_ms: float) -> None:
    assert allowed_age_ms(SETTINGS, waited_s) == allowed_ms


def test_a_lock_that_waits_for_less_changes_nothing() -> None:
    assert allowed_age_ms(SETTINGS.model_copy(update={"lock_deadline_ms": 50}), 3600) == 100
