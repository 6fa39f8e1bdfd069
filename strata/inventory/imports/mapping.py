"""A mapping: a small TOML file that says how rows of somebody's file become products and movements (docs/importing.md)."""

from __future__ import annotations

import codecs
import hashlib
import tomllib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import UNSET, UnsetType

from strata.inventory.imports.errors import MappingRefusedError, MappingUnknownError
from strata.inventory.imports.refusals import RefusalCode
from strata.inventory.movements.models import MovementKind
from strata.inventory.text_rules import BinCode, PlaceCode

PACKAGED = Path(__file__).with_name("mappings")

Code = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
KINDS = frozenset({MovementKind.RECEIVE, MovementKind.PICK, MovementKind.ADJUST})
"""The kinds that one line can make; the others need more than it says."""


class FileFormat(StrEnum):
    CSV = "csv"


class Normalisation(StrEnum):
    TRIM = "trim"
    UPPER = "upper"
    LOWER = "lower"
    SQUEEZE = "squeeze"
    """Runs of white space become one space."""


class NameChoice(StrEnum):
    MOST_FREQUENT = "most-frequent"
    LATEST = "latest"


class Reading(StrEnum):
    """How the file's quantity becomes the movement's."""

    AS_IS = "as-is"
    NEGATED = "negated"


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Layout(_Part, frozen=True):
    format: FileFormat = FileFormat.CSV
    encoding: str = "utf-8"
    delimiter: Annotated[str, msgspec.Meta(min_length=1, max_length=1)] = ","


class TextColumn(_Part, frozen=True):
    column: str
    normalise: tuple[Normalisation, ...] = (Normalisation.TRIM,)


class NameColumn(_Part, frozen=True):
    column: str
    normalise: tuple[Normalisation, ...] = (Normalisation.TRIM, Normalisation.SQUEEZE)
    choose: NameChoice = NameChoice.MOST_FREQUENT


class TimeColumn(_Part, frozen=True):
    column: str
    format: str | None = None
    """As for strptime; None: ISO 8601."""
    time_zone: str = "UTC"
    """For times that name no zone themselves."""


class CustomSource(_Part, frozen=True):
    """Where the values of a custom field come from: a column, or one constant for all."""

    column: str | None = None
    constant: str | int | float | None = None
    opening: str | int | float | None = None
    """Of a movement's field with a column: what movements of opening stock have, which no row of the file is."""


CustomPart = dict[str, str | CustomSource]
"""By the field's key; a text is the name of a column."""


class ProductPart(_Part, frozen=True):
    sku: TextColumn
    name: NameColumn | None = None
    custom: CustomPart | UnsetType = UNSET
    """UNSET rather than empty: so a mapping without any keeps the digest by which half-done runs know it."""


class MovementPart(_Part, frozen=True):
    quantity: str
    warehouse: PlaceCode
    zone: PlaceCode
    bin: BinCode
    """Where all of it happens; the three are made when they are not there."""
    reference: str | None = None
    occurred_at: TimeColumn | None = None
    group_by: tuple[str, ...] = ()
    """Lines that follow one another and agree in these columns, and in their rule, are one movement."""
    custom: CustomPart | UnsetType = UNSET
    """Lines that differ in these are different movements."""


class Condition(_Part, frozen=True):
    """What is asked of one column; everything given must hold. Text is compared trimmed and without regard to case."""

    column: str
    empty: bool | None = None
    one_of: tuple[str, ...] | None = None
    starts_with: tuple[str, ...] | None = None
    above: float | None = None
    below: float | None = None
    equals: float | None = None
    """A number; for text, `one_of`."""

    def asks_nothing(self) -> bool:
        asked = (self.empty, self.one_of, self.starts_with, self.above, self.below, self.equals)
        return all(each is None for each in asked)


class RefuseRule(_Part, frozen=True):
    code: Code
    because: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    when: tuple[Condition, ...]


class PostRule(_Part, frozen=True):
    kind: MovementKind
    reason: Code | None = None
    quantity: Reading = Reading.AS_IS
    names_product: bool = True
    """Whether such a line's text is the product's name; on a write-off it often says why instead."""
    when: tuple[Condition, ...] = ()


class MappingDocument(_Part, frozen=True):
    title: str
    product: ProductPart
    movement: MovementPart
    post: Annotated[tuple[PostRule, ...], msgspec.Meta(min_length=1)]
    refuse: tuple[RefuseRule, ...] = ()
    file: Layout = Layout()

    def conditions(self) -> Iterator[Condition]:
        for refuse in self.refuse:
            yield from refuse.when
        for post in self.post:
            yield from post.when


class Mapping(msgspec.Struct, frozen=True):
    name: str
    digest: str
    """Of the document's content: a run that was begun with another wording is another run."""
    document: MappingDocument

    def columns(self) -> tuple[str, ...]:
        """Every column the document names, each once."""
        document = self.document
        named = [document.product.sku.column, document.movement.quantity, *document.movement.group_by]
        if document.product.name is not None:
            named.append(document.product.name.column)
        if document.movement.reference is not None:
            named.append(document.movement.reference)
        if document.movement.occurred_at is not None:
            named.append(document.movement.occurred_at.column)
        for sources in (custom_sources(document.product), custom_sources(document.movement)):
            named += [source.column for source in sources.values() if source.column is not None]
        named += [condition.column for condition in document.conditions()]
        return tuple(dict.fromkeys(named))


def custom_sources(part: ProductPart | MovementPart) -> dict[str, CustomSource]:
    named = {} if part.custom is UNSET else part.custom
    return {key: CustomSource(source) if isinstance(source, str) else source for key, source in named.items()}


def packaged_names() -> list[str]:
    return sorted(path.stem for path in PACKAGED.glob("*.toml"))


def mapping_titles() -> dict[str, str]:
    return {name: packaged(name).document.title for name in packaged_names()}


def packaged(name: str) -> Mapping:
    """A mapping that comes with Strata. Names from outside go through here: none of them is ever used as a path."""
    if name not in packaged_names():
        raise MappingUnknownError(name, packaged_names())
    return parse(name, (PACKAGED / f"{name}.toml").read_bytes())


def load(name_or_path: str) -> Mapping:
    """A packaged mapping by name, or one's own by the path of a file that ends in .toml."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        return packaged(name_or_path)
    try:
        return parse(path.stem, path.read_bytes())
    except OSError as error:
        raise MappingRefusedError(name_or_path, f"{error.strerror}") from error


def parse(name: str, content: bytes) -> Mapping:
    try:
        document = msgspec.convert(tomllib.loads(content.decode("utf-8")), MappingDocument)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise MappingRefusedError(name, str(error)) from error
    problem = _problem(document)
    if problem is not None:
        raise MappingRefusedError(name, problem)
    return mapping_of(name, document)


def mapping_of(name: str, document: MappingDocument) -> Mapping:
    # Of the decoded document, so that a comment or a space more does not make a half-done run another one.
    digest = hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()
    return Mapping(name, digest, document)


def _problem(document: MappingDocument) -> str | None:
    """What the types cannot say."""
    return _layout_problem(document) or _custom_problem(document) or _rule_problem(document)


def _layout_problem(document: MappingDocument) -> str | None:
    try:
        codecs.lookup(document.file.encoding)
    except LookupError:
        return f"there is no encoding «{document.file.encoding}»"
    occurred_at = document.movement.occurred_at
    if occurred_at is not None:
        try:
            ZoneInfo(occurred_at.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return f"this machine knows no time zone «{occurred_at.time_zone}»"
    return None


def _custom_problem(document: MappingDocument) -> str | None:
    for name, part in (("product", document.product), ("movement", document.movement)):
        for key, source in custom_sources(part).items():
            if (source.column is None) == (source.constant is None):
                return f"{name}.custom.{key} needs a column or a constant, and not both"
            if source.opening is not None and (part is document.product or source.column is None):
                return f"{name}.custom.{key} has an opening, which is for a movement's field that has a column"
    return None


def _rule_problem(document: MappingDocument) -> str | None:
    for rule in document.refuse:
        if rule.code in set(RefusalCode):
            return f"the refusal code «{rule.code}» is one of Strata's own"
        if not rule.when:
            return f"the rule «{rule.code}» would refuse every row; give it a condition"
    for post in document.post:
        if post.kind not in KINDS:
            return f"a line cannot make a {post.kind}; it can {', '.join(sorted(KINDS))}"
    for condition in document.conditions():
        if condition.asks_nothing():
            return f"a condition on «{condition.column}» asks nothing"
    return None
