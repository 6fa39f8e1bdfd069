"""Usage: python -m tools.event_schemas

Writes the JSON Schema of every event to docs/events. Refuses what readers of a published version would stumble over: a
payload that changes so gets a new version, beside the old one. A new file begins to count with its first commit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from strata.events import EVENTS
from strata.tenancy.events.publishing import incompatibilities, rendered, schemas

DIRECTORY = Path(__file__).resolve().parent.parent / "docs" / "events"


def main() -> int:
    refused = False
    for name, schema in schemas(EVENTS).items():
        file = DIRECTORY / name
        if file.exists():
            for problem in incompatibilities(msgspec.json.decode(file.read_bytes()), schema):
                print(f"{name}: {problem}; make it a new version", file=sys.stderr)
                refused = True
        if not refused:
            file.write_bytes(rendered(schema))
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
