"""A process that imports and says how far it is, to be killed: importing.py SLUG FILE MAPPING BATCH_ROWS LEASE_S."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.mapping import packaged
from strata.inventory.imports.runner import ImportRunner, Progress
from strata.inventory.imports.schemas import ImportOptions
from strata.platform.errors import StrataError
from strata.platform.settings import Settings
from strata.runtime import open_runtime


def say(document: object) -> None:
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def tell(progress: Progress) -> None:
    say({"event": "progress", **msgspec.structs.asdict(progress)})


async def main() -> None:
    slug, file, mapping, batch_rows, lease_s = sys.argv[1:]
    async with open_runtime(Settings()) as runtime:
        context = await runtime.contexts.get_by_slug(slug)
        runner = ImportRunner(runtime.tenants, context, batch_rows=int(batch_rows), lease_s=float(lease_s))
        try:
            summary = await runner.run(
                SourceFile(Path(file)),
                packaged(mapping),
                ImportOptions(opening_stock=True),
                actor="tests",
                listener=tell,
            )
        except StrataError as error:
            say({"event": "refused", "code": error.code})
        else:
            say({"event": "summary", **msgspec.to_builtins(summary)})


asyncio.run(main())
