"""The product's pages on a tenant's own address: stock, one product, posting a movement."""

from __future__ import annotations

from strata.inventory.pages import imports
from strata.inventory.pages.approvals import decide_by_form, movement_requests
from strata.inventory.pages.movements import movement_form, post_movement_form, suggest_bins, suggest_products
from strata.inventory.pages.one_movement import movement, reverse_by_form
from strata.inventory.pages.stock import product, stock

ROUTES = [
    stock,
    product,
    movement_form,
    post_movement_form,
    suggest_products,
    suggest_bins,
    movement_requests,
    decide_by_form,
    movement,
    reverse_by_form,
    *imports.ROUTES,
]
