"""What texts may look like at the edge; the tables hold the same rules for whoever comes another way.

Patterns are written for both msgspec and JSON Schema (ECMA 262), since the description shows them.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

_NO_NUL = r"^[^\x00]*$"
_TRIMMED = r"^(?!\s)(?![\s\S]*[\x00-\x1f\x7f])[\s\S]*\S$"
"""No control characters, no space at either end."""

Sku = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=64, pattern=_TRIMMED, description="Exact: upper and lower case differ."),
]
BinCode = Annotated[
    str, msgspec.Meta(min_length=1, max_length=64, pattern=_TRIMMED, description="The bin's code, as on its label.")
]
PlaceCode = Annotated[str, msgspec.Meta(min_length=1, max_length=32, pattern=_TRIMMED)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=_TRIMMED)]
Barcode = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_TRIMMED)]
Unit = Annotated[str, msgspec.Meta(min_length=1, max_length=16, pattern=_TRIMMED)]
Batch = Annotated[str, msgspec.Meta(max_length=64, pattern=_NO_NUL, description="Empty: not kept by batch.")]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=_TRIMMED)]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_TRIMMED)]
Note = Annotated[str, msgspec.Meta(min_length=1, max_length=2000, pattern=_NO_NUL)]
SearchText = Annotated[str, msgspec.Meta(max_length=200, pattern=_NO_NUL)]
