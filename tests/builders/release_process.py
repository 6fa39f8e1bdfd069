"""`strata` of a release that is not out yet: python -m tests.builders.release_process MIGRATIONS WORDS…"""

from __future__ import annotations

import sys
from pathlib import Path

import strata.migrations

strata.migrations.MIGRATIONS = Path(sys.argv[1])

from strata.cli import main  # noqa: E402 - its modules take the path when they are imported

main(sys.argv[2:])
