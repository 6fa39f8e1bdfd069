"""strata tenant set …: what was agreed with one tenant, document by document."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from strata.cli.options import AsJson, DataDir, Slug
from strata.cli.output import print_json, print_line
from strata.cli.surroundings import actor, perform
from strata.platform.errors import BadRequestError
from strata.runtime import Runtime
from strata.tenancy.facets.registry import DOCUMENTS

# Typer shows and checks an enum's values; these are the facets there are.
FacetName = StrEnum("FacetName", [facet.name for facet in DOCUMENTS])  # type: ignore[misc]


class UnreadableDocumentError(BadRequestError):
    code = "unreadable-document"
    title = "Document cannot be read"


def set_document(
    slug: Slug,
    facet: Annotated[FacetName, typer.Argument(metavar="FACET", help="branding.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A JSON object; - for standard input; {} for defaults.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Replace a tenant's branding; members left out have their defaults."""
    document = next(each for each in DOCUMENTS if each.name == facet.value).check(read_document(file))

    async def act(runtime: Runtime) -> None:
        await runtime.directory.set_document(slug, facet.value, document or None, actor())

    perform(act, data_dir)
    if as_json:
        print_json({"slug": slug, "facet": facet.value, "document": document})
    else:
        print_line(f"{slug}: {facet.value} set.")


def read_document(file: Path) -> object:
    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return msgspec.json.decode(text)
    except (OSError, msgspec.DecodeError) as error:
        detail = f"{file} cannot be read as JSON: {error}."
        raise UnreadableDocumentError(detail) from error
