"""The list of mutants fits the code as it stands: an entry that does not shows nothing, and is seen only when they are run."""

from __future__ import annotations

import re
import tomllib

import pytest

from tools.mutants import LIST, ROOT, Mutant

ENTRIES = tomllib.loads(LIST.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ENTRIES)
def test_every_guard_is_there_and_so_is_the_test_that_misses_it(name: str) -> None:
    mutant = Mutant(name, ENTRIES[name])
    assert mutant.fits(ROOT)
    file, _, function = mutant.test.partition("::")
    written = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"\bdef {re.escape(function.partition('[')[0])}\(", written)
