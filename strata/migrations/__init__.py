"""Where the three chains of revisions are: `catalog`, `cell` and `tenant`."""

from __future__ import annotations

from pathlib import Path

MIGRATIONS = Path(__file__).parent
