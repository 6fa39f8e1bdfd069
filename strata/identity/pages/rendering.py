from __future__ import annotations

from pathlib import Path

from strata.platform.web.pages import Pages

PAGES = Pages(Path(__file__).with_name("templates"))
