"""The same goods on every side: 1,000 products in ten bins, and requests that name them."""

from __future__ import annotations

import random

import msgspec

SKUS = [f"SKU-{number:05d}" for number in range(1, 1001)]
BINS = [f"A-{number:02d}" for number in range(1, 11)]
OPENING_STOCK = 1_000_000_000
HOT_SKU = SKUS[499]

# Names no tenant: where there is one, the column's default knows it. All of them one statement each.
FILL = (
    (
        "INSERT INTO product (sku, name, barcode, attributes)"
        " SELECT sku, 'Product ' || sku, '40' || substr(sku, 5), '{\"colour\": \"red\", \"pieces\": 6}'"
        f" FROM unnest(ARRAY{SKUS}) AS sku"
    ),
    "INSERT INTO warehouse (code, name) VALUES ('MAIN', 'Main warehouse')",
    "INSERT INTO zone (warehouse_id, code, name) SELECT id, 'A', 'Zone A' FROM warehouse",
    f"INSERT INTO bin (zone_id, code) SELECT zone.id, bins.code FROM zone, unnest(ARRAY{BINS}) AS bins (code)",
)


def bin_of(sku: str) -> str:
    return BINS[SKUS.index(sku) % len(BINS)]


def movement(kind: str, *lines: tuple[str, int]) -> bytes:
    return msgspec.json.encode(
        {"kind": kind, "lines": [{"sku": sku, "bin": bin_of(sku), "quantity": quantity} for sku, quantity in lines]}
    )


def two_line_movements(count: int = 500) -> list[bytes]:
    """Receipts and picks in turn, of pairs drawn over all products; the draw is always the same."""
    draw = random.Random(20_261_122)
    bodies: list[bytes] = []
    for number in range(count):
        first, second = draw.sample(SKUS, 2)
        bodies.append(movement("pick" if number % 2 else "receive", (first, 5), (second, 3)))
    return bodies


def opening_stock() -> list[bytes]:
    """Receipts of 200 lines each, so that no pick finds a shelf empty."""
    return [
        movement("receive", *((sku, OPENING_STOCK) for sku in SKUS[start : start + 200]))
        for start in range(0, len(SKUS), 200)
    ]
