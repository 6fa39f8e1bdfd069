"""A movement as somebody is typing it: kept as typed, with what is wrong beside the field it is wrong in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from uuid import uuid4

import msgspec
from litestar.datastructures import FormMultiDict

from strata.inventory.custom.values import PREFIX, Fields, typed
from strata.inventory.movements.errors import LinesRefusedError, StockShortageError
from strata.inventory.movements.models import MovementKind
from strata.inventory.movements.schemas import MAX_LINES, LineIn, MovementIn
from strata.inventory.text_rules import Reason, Reference
from strata.platform.errors import StrataError
from strata.tenancy.context import TenantContext
from strata.tenancy.entitlements.asking import Feature

KINDS = (
    MovementKind.RECEIVE,
    MovementKind.TRANSFER,
    MovementKind.PICK,
    MovementKind.ADJUST,
    MovementKind.COUNT,
)
_LINE_FIELDS = ("sku", "bin", "to_bin", "quantity", "batch", "expires_on")
_HEAD_FIELDS = ("reference", "reason")
_MISSING = {
    "sku": "Scan or type the SKU.",
    "bin": "Scan or type the bin.",
    "to_bin": "Scan or type the bin it goes to.",
    "quantity": "How many?",
}
_NOT_ACCEPTABLE = {
    "sku": "That cannot be a SKU: at most 64 characters, nothing invisible.",
    "bin": "That cannot be a bin's code: at most 64 characters, nothing invisible.",
    "to_bin": "That cannot be a bin's code: at most 64 characters, nothing invisible.",
    "quantity": "Give a whole number.",
    "batch": "A batch has at most 64 characters.",
    "expires_on": "Give the date as year-month-day.",
    "reference": "At most 128 characters, nothing invisible.",
    "reason": "At most 64 characters, nothing invisible.",
}
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,16}")
_FIELD_OF_PROBLEM = re.compile(r"`\$\.([a-z_]+)")


class LineDraft(msgspec.Struct):
    sku: str = ""
    bin: str = ""
    to_bin: str = ""
    quantity: str = ""
    batch: str = ""
    expires_on: str = ""
    problems: dict[str, str] = {}

    @property
    def is_blank(self) -> bool:
        return not any(getattr(self, field) for field in _LINE_FIELDS)


class MovementDraft(msgspec.Struct):
    kind: MovementKind
    lines: list[LineDraft]
    reference: str = ""
    reason: str = ""
    custom: dict[str, str] = {}
    """Values of custom fields as typed, by key."""
    key: str = msgspec.field(default_factory=lambda: str(uuid4()))
    """The Idempotency-Key of the post to come: a form sent twice takes effect once."""
    problems: dict[str, str] = {}
    """By field of the head; under the empty name what concerns no field."""
    focus: int = 0
    """The line whose first field waits for the next scan."""

    @property
    def is_wrong(self) -> bool:
        return bool(self.problems) or any(line.problems for line in self.lines)

    def add_line(self) -> None:
        if len(self.lines) < MAX_LINES:
            self.lines.append(LineDraft())
        self.focus = next((number for number, line in enumerate(self.lines) if line.is_blank), 0)

    def checked(self, sku_of: Mapping[str, str], fields: Fields = ()) -> MovementIn | None:
        """The movement to post, or None, and then the draft says what is wrong. `sku_of`: SKUs by barcode."""
        filled = [line for line in self.lines if not line.is_blank]
        if not filled:
            self.lines = self.lines[:1] or [LineDraft()]
            self.lines[0].problems = {"sku": _MISSING["sku"]}
            return None
        self.lines = filled
        lines = [self._checked_line(line, sku_of) for line in filled]
        head = {name: text for name in _HEAD_FIELDS if (text := getattr(self, name))}
        try:
            about = msgspec.convert(head, _Head)
        except msgspec.ValidationError as error:
            field = _field_of(error)
            self.problems = {field: _NOT_ACCEPTABLE.get(field, str(error))}
            return None
        if self.is_wrong:
            return None
        return MovementIn(
            self.kind,
            [line for line in lines if line is not None],
            reference=about.reference,
            reason=about.reason,
            custom=typed(fields, {field.key: text for field in fields if (text := self.custom.get(field.key))}),
        )

    def _checked_line(self, line: LineDraft, sku_of: Mapping[str, str]) -> LineIn | None:
        wanted = [name for name in _MISSING if name != "to_bin" or self.kind is MovementKind.TRANSFER]
        line.problems = {name: _MISSING[name] for name in wanted if not getattr(line, name)}
        quantity = line.quantity.replace("\u2212", "-").replace(" ", "")
        if line.quantity and not _WHOLE_NUMBER.fullmatch(quantity):
            line.problems["quantity"] = _NOT_ACCEPTABLE["quantity"]
        if line.problems:
            return None
        document: dict[str, object] = {
            "sku": sku_of.get(line.sku, line.sku),
            "bin": line.bin,
            "quantity": int(quantity),
            "batch": line.batch,
        }
        if self.kind is MovementKind.TRANSFER:
            document["to_bin"] = line.to_bin
        if self.kind is MovementKind.RECEIVE and line.expires_on:
            document["expires_on"] = line.expires_on
        try:
            return msgspec.convert(document, LineIn)
        except msgspec.ValidationError as error:
            field = _field_of(error)
            line.problems = {field or "sku": _NOT_ACCEPTABLE.get(field, str(error))}
            return None

    def take_refusal(self, error: StrataError) -> None:
        """Put what posting has refused beside the fields concerned."""
        match error:
            case StockShortageError(shortages=shortages):
                for short in shortages:
                    said = f"{short.wanted:,} wanted, {short.on_hand:,} on hand."
                    for line in self._lines_at(short.sku, short.bin):
                        line.problems = {"quantity": said}
                self.problems = {"": error.detail}
            case LinesRefusedError():
                self._take_line_errors(error)
            case _:
                self.problems = {"": error.detail}

    def begin_anew(self) -> None:
        """Whatever was posted under the old key, the next post is another movement."""
        self.key = str(uuid4())
        self.problems = {
            "": "This form was posted before, with other content. Look at it again; posting it now is a new movement."
        }

    def _lines_at(self, sku: str, code: str) -> Sequence[LineDraft]:
        """Those of the balance that is short; scanned by barcode they do not say the SKU, so the bin decides."""
        in_bin = [line for line in self.lines if line.bin == code]
        return [line for line in in_bin if line.sku == sku] or in_bin

    def _take_line_errors(self, error: LinesRefusedError) -> None:
        found = error.extra["errors"]
        for each in found if isinstance(found, list) else []:
            parts = str(each["path"]).split("/")
            if len(parts) == len(("", "lines", "number", "field")) and parts[2].isdigit():
                self.lines[int(parts[2])].problems[parts[3]] = str(each["message"])
            else:
                # /reason, /custom/colour: beside their field of the head.
                self.problems[".".join(parts[1:])] = str(each["message"])
        if not self.is_wrong:
            self.problems = {"": error.detail}


class _Head(msgspec.Struct, frozen=True):
    reference: Reference | None = None
    reason: Reason | None = None


def draft_from(form: FormMultiDict) -> MovementDraft:
    columns = [[str(value).strip() for value in form.getall(name, [])] for name in _LINE_FIELDS]
    count = min(max((len(column) for column in columns), default=0), MAX_LINES)
    padded = [(column + [""] * count)[:count] for column in columns]
    lines = [
        msgspec.convert(dict(zip(_LINE_FIELDS, line, strict=True)), LineDraft) for line in zip(*padded, strict=True)
    ]
    head = {name: str(form.getall(name, [""])[0]).strip() for name in (*_HEAD_FIELDS, "key")}
    return MovementDraft(
        kind_named(str(form.getall("kind", [""])[0])),
        lines or [LineDraft()],
        reference=head["reference"],
        reason=head["reason"],
        custom={name.removeprefix(PREFIX): str(form[name]).strip() for name in form if name.startswith(PREFIX)},
        key=head["key"] or str(uuid4()),
    )


def kinds_for(context: TenantContext) -> Sequence[MovementKind]:
    """Those that the tenant's plan includes."""
    transfers = Feature.TRANSFERS in context.features
    return [kind for kind in KINDS if transfers or kind is not MovementKind.TRANSFER]


def kind_named(name: str) -> MovementKind:
    return MovementKind(name) if name in KINDS else MovementKind.RECEIVE


def _field_of(error: msgspec.ValidationError) -> str:
    found = _FIELD_OF_PROBLEM.search(str(error))
    return found.group(1) if found else ""
