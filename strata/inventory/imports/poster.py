"""What one transaction of an import writes: products that are new, movements, and the verdict on each line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec

from strata.inventory.custom.values import Value, Values
from strata.inventory.imports import repository
from strata.inventory.imports.batches import MOVEMENT_LINES, Batch, Group
from strata.inventory.imports.mapping import MovementPart
from strata.inventory.imports.refusals import Refusal, RefusalCode
from strata.inventory.imports.repository import Gain
from strata.inventory.imports.rows import REFERENCE_LIMIT, Interpreter, Line
from strata.inventory.movements.errors import line_error
from strata.inventory.movements.models import MovementKind
from strata.inventory.movements.outcomes import Accepted, BatchOutcome, CancelledOut, Refused, Short, Shortage
from strata.inventory.movements.posting import post_movements
from strata.inventory.movements.schemas import LineIn, MovementDocument
from strata.inventory.products.repository import ensure_products
from strata.platform.ids import new_id
from strata.tenancy.session import TenantSession

OPENING_REASON = "opening-stock"


class Step(msgspec.Struct, frozen=True):
    """What a transaction did, once it is committed."""

    gain: Gain = Gain()
    refusals: Sequence[Refusal] = ()
    known: frozenset[str] = frozenset()
    """SKUs that exist now."""


class Poster:
    """`name`, `custom`: what a product is called and has, by SKU; `opening`: custom values of opening stock;
    `begins_at`: the time of the file's first movement.
    """

    def __init__(
        self,
        place: MovementPart,
        name: Callable[[str], str],
        custom: Callable[[str], Values],
        *,
        opening: dict[str, Value],
        begins_at: datetime | None,
        actor: str,
        sku_limit: int | None,
    ) -> None:
        self._bin = place.bin
        self._name = name
        self._custom = custom
        self._opening = opening
        self._begins_at = begins_at
        self._actor = actor
        self._sku_limit = sku_limit
        self._known: set[str] = set()

    def remember(self, step: Step) -> None:
        """Not before the commit: what was rolled back has to be made again."""
        self._known |= step.known

    async def open(self, session: TenantSession, needed: Sequence[tuple[str, int]], reference: str) -> Step:
        """Receive what these products need beyond what lies in the bin already."""
        made = await self._ensure(session, [sku for sku, _ in needed])
        there = await repository.on_hand(session, [sku for sku, _ in needed], self._bin)
        lacking = [
            LineIn(sku=sku, bin=self._bin, quantity=quantity - there.get(sku, 0))
            for sku, quantity in needed
            if sku in made.known and quantity > there.get(sku, 0)
        ]
        documents = [
            MovementDocument(
                id=new_id(),
                kind=MovementKind.RECEIVE,
                lines=lacking[start : start + MOVEMENT_LINES],
                reference=reference[:REFERENCE_LIMIT],
                reason=OPENING_REASON,
                occurred_at=self._begins_at,
                custom=self._opening,
            )
            for start in range(0, len(lacking), MOVEMENT_LINES)
        ]
        opened = movements = 0
        for document, outcome in zip(documents, await self._post(session, documents), strict=True):
            # An inactive product cannot be received; its lines will be refused one by one, and say so.
            if isinstance(outcome, Accepted):
                movements += 1
                opened += sum(line.quantity for line in document.lines)
        return Step(Gain(products=made.created, movements=movements, opening=opened), known=made.known)

    async def post(self, session: TenantSession, batch: Batch, interpreter: Interpreter) -> Step:
        skus = dict.fromkeys(line.sku for group in batch.groups for line in group.lines)
        made = await self._ensure(session, [sku for sku in skus if sku not in self._known])
        refusals = list(batch.refusals)
        groups: list[Group] = []
        for group in batch.groups:
            fitting = [line for line in group.lines if line.sku not in made.refused and line.sku not in made.lacking]
            refusals += (
                _lacking(line, made.lacking[line.sku], interpreter) for line in group.lines if line.sku in made.lacking
            )
            refusals += (self._beyond_limit(line, interpreter) for line in group.lines if line.sku in made.refused)
            if fitting:
                groups.append(Group(fitting))
        documents = [self._document(group, interpreter) for group in groups]
        accepted = quantity = movements = 0
        for group, outcome in zip(groups, await self._post(session, documents), strict=True):
            if isinstance(outcome, Accepted):
                movements += 1
                accepted += len(group.lines)
                quantity += sum(line.delta for line in group.lines)
            else:
                refusals += _refusals(group, outcome, interpreter)
        gain = Gain(
            rows=batch.rows,
            accepted=accepted,
            refused=len(refusals),
            products=made.created,
            movements=movements,
            quantity=quantity,
        )
        return Step(gain, refusals, made.known)

    async def _ensure(self, session: TenantSession, skus: Sequence[str]) -> _Made:
        products = [(sku, self._name(sku)) for sku in skus]
        custom = {sku: values for sku in skus if (values := self._custom(sku))}
        ensured = await ensure_products(session, products, sku_limit=self._sku_limit, custom=custom)
        known = frozenset(skus) - ensured.refused - ensured.lacking.keys()
        return _Made(ensured.created, ensured.refused, ensured.lacking, known)

    async def _post(self, session: TenantSession, documents: Sequence[MovementDocument]) -> list[BatchOutcome]:
        return await post_movements(session, documents, actor=self._actor) if documents else []

    def _document(self, group: Group, interpreter: Interpreter) -> MovementDocument:
        rule = interpreter.rules[group.first.rule]
        return MovementDocument(
            id=new_id(),
            kind=rule.kind,
            lines=[LineIn(sku=line.sku, bin=self._bin, quantity=line.quantity) for line in group.lines],
            reference=group.first.reference,
            reason=rule.reason,
            occurred_at=group.first.occurred_at,
            custom=group.first.movement_custom,
        )

    def _beyond_limit(self, line: Line, interpreter: Interpreter) -> Refusal:
        predicate = (
            f"names the new product «{line.sku}», and the plan allows {self._sku_limit} products, which are in use"
        )
        return interpreter.refused(line.record, RefusalCode.SKU_LIMIT, predicate)


def _lacking(line: Line, why: str, interpreter: Interpreter) -> Refusal:
    predicate = (
        f"names the new product «{line.sku}», and no line gives what it needs: {why.rstrip('.')}; "
        "let the mapping name its column, or create the product first"
    )
    return interpreter.refused(line.record, RefusalCode.CUSTOM_REQUIRED, predicate)


class _Made(msgspec.Struct, frozen=True):
    created: int
    refused: frozenset[str]
    lacking: dict[str, str]
    known: frozenset[str]


def _refusals(group: Group, outcome: Short | Refused | CancelledOut, interpreter: Interpreter) -> Iterable[Refusal]:
    """A movement is posted whole or not at all: lines at fault say what is wrong, the others which one it was."""
    faults = _faults(group, outcome)
    first = next(line for line in group.lines if line.record.line in faults)
    for line in group.lines:
        code, predicate = faults.get(line.record.line) or (
            RefusalCode.MOVEMENT_REFUSED,
            f"belongs to one movement with line {first.record.line}, which was refused",
        )
        yield interpreter.refused(line.record, code, predicate)


def _faults(group: Group, outcome: Short | Refused | CancelledOut) -> dict[int, tuple[str, str]]:
    """Code and predicate by line of the file."""
    match outcome:
        case Short(shortages):
            short = {shortage.sku: shortage for shortage in shortages}
            return {
                line.record.line: (RefusalCode.SHORTAGE, _shortage(short[line.sku]))
                for line in group.lines
                if line.sku in short
            }
        case Refused(problems):
            faults: dict[int, tuple[str, str]] = {}
            for problem in problems:
                error = line_error(problem)
                predicate = f"was refused: {error['message'].rstrip('.')}"
                faults.setdefault(group.lines[problem.line].record.line, (error["code"], predicate))
            return faults
        case CancelledOut():
            predicate = "and the other lines of its movement cancel each other out"
            return {line.record.line: (RefusalCode.CANCELLED_OUT, predicate) for line in group.lines}


def _shortage(shortage: Shortage) -> str:
    return f"is short of «{shortage.sku}»: its movement takes {shortage.wanted}, and {shortage.on_hand} are on hand"
