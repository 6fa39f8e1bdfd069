"""Believable stock for a demo tenant: products, places, and a month of movements, once."""

from strata.inventory.seeding.assortments import Assortment, AssortmentName, assortment
from strata.inventory.seeding.stock import Seeded, seed_stock

__all__ = ["Assortment", "AssortmentName", "Seeded", "assortment", "seed_stock"]
