"""The first pass over the file: can it be read to its end, what are the goods called, what must have been in stock.

Memory grows with the number of products, not of rows.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from strata.inventory.custom.values import Value
from strata.inventory.imports.batches import Group, batches
from strata.inventory.imports.files import SourceFile
from strata.inventory.imports.mapping import Mapping, NameChoice
from strata.inventory.imports.records import CsvRecords
from strata.inventory.imports.rows import Interpreter, Line
from strata.inventory.settings import CustomFields

NAMES_KEPT = 32
"""Different names of one product that are counted; a file that renames it in every row must not fill the memory."""
_BATCH = 1000
_NO_CUSTOM = CustomFields()


class Goods(msgspec.Struct):
    """What the file says of one product."""

    names: dict[str, int] = {}
    """How often each occurs; in the order in which they were last seen when the latest is wanted."""
    spellings: set[str] = set()
    custom: dict[str, Value] = {}
    """Of each field the first value that the file gives."""
    balance: int = 0
    lowest: int = 0

    def name(self, choice: NameChoice) -> str:
        if not self.names:
            return ""
        if choice is NameChoice.LATEST:
            return next(reversed(self.names))
        # Of equally frequent ones the later wins: max keeps the first it meets.
        return max(reversed(self.names), key=self.names.__getitem__)


class Folded(msgspec.Struct, frozen=True):
    """Codes that the mapping's normalisation made one product."""

    sku: str
    spellings: tuple[str, ...]


class Survey(msgspec.Struct, frozen=True):
    digest: bytes
    """SHA-256 of the unpacked file."""
    rows: int
    begins_at: datetime | None
    goods: dict[str, Goods]
    """In the order of their first appearance: the order of everything that is done product by product."""
    name_choice: NameChoice

    def name(self, sku: str) -> str:
        """Never empty: a product that the file does not name is called by its code."""
        goods = self.goods.get(sku)
        return (goods.name(self.name_choice) if goods else "") or sku

    def custom(self, sku: str) -> dict[str, Value]:
        goods = self.goods.get(sku)
        return goods.custom if goods else {}

    def needed(self) -> list[tuple[str, int]]:
        """Products that the file sells before it receives them, and how many it takes that none is ever short."""
        return [(sku, -goods.lowest) for sku, goods in self.goods.items() if goods.lowest < 0]

    def folded(self) -> list[Folded]:
        return [
            Folded(sku, tuple(sorted(goods.spellings))) for sku, goods in self.goods.items() if len(goods.spellings) > 1
        ]


def survey(file: SourceFile, mapping: Mapping, fields: CustomFields = _NO_CUSTOM) -> Survey:
    """Read the whole file once. Errors: FileUnreadableError and below."""
    name = mapping.document.product.name
    choice = NameChoice.MOST_FREQUENT if name is None else name.choose
    goods: dict[str, Goods] = {}
    rows = 0
    begins_at: datetime | None = None
    with file.open(mapping.document.file.encoding) as (text, digest):
        records = CsvRecords(text, mapping, file.name)
        interpreter = Interpreter(mapping, records.columns, fields)
        for batch in batches(records, interpreter, _BATCH):
            rows += batch.rows
            for group in batch.groups:
                _weigh(group, goods, choice)
                when = group.first.occurred_at
                if when is not None and (begins_at is None or when < begins_at):
                    begins_at = when
    return Survey(digest.value(), rows, begins_at, goods, choice)


def _weigh(group: Group, goods: dict[str, Goods], choice: NameChoice) -> None:
    for line in group.lines:
        found = goods.get(line.sku)
        if found is None:
            found = goods[line.sku] = Goods()
        found.spellings.add(line.spelling)
        found.balance += line.delta
        if line.name:
            _count_name(found, line, choice)
        for key, value in line.product_custom.items():
            found.custom.setdefault(key, value)
    # A movement is judged as a whole: only what it leaves behind can be short.
    for line in group.lines:
        found = goods[line.sku]
        found.lowest = min(found.lowest, found.balance)


def _count_name(goods: Goods, line: Line, choice: NameChoice) -> None:
    seen = goods.names.pop(line.name, 0) if choice is NameChoice.LATEST else goods.names.get(line.name, 0)
    if seen or len(goods.names) < NAMES_KEPT:
        goods.names[line.name] = seen + 1
