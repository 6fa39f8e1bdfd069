"""Fills a database that trytond-admin has made: a company, a user to log in as, the products. Runs in .venv-bench.

Prints, as one JSON line, what a client has to know to move stock.
"""

from __future__ import annotations

import argparse
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from trytond import config


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--skus", type=Path, required=True, help="JSON list")
    given = parser.parse_args()
    config.update_etc(given.config)

    from trytond.pool import Pool  # noqa: PLC0415 - trytond wants its configuration first
    from trytond.transaction import Transaction  # noqa: PLC0415

    Pool.start()
    pool = Pool(given.database)
    pool.init()
    with Transaction().start(given.database, 1) as transaction:
        currency = _create(pool, "currency.currency", name="Euro", code="EUR", symbol="€", numeric_code="978")
        party = _create(pool, "party.party", name="Bench")
        company = _create(pool, "company.company", party=party, currency=currency)
        pool.get("res.user").write(
            list(pool.get("res.user").search([("login", "=", "admin")])),
            {"companies": [("add", [company.id])], "company": company.id},
        )
        with transaction.set_context(company=company.id):
            (unit,) = pool.get("product.uom").search([("symbol", "=", "u")])
            products = _products(pool, unit, json.loads(given.skus.read_text()))
            places = {
                code: pool.get("stock.location").search([("code", "=", code)])[0].id for code in ("SUP", "STO", "OUT")
            }
    print(
        json.dumps(
            {"company": company.id, "currency": currency.id, "unit": unit.id, "places": places, "products": products}
        )
    )


def _create(pool: Any, model: str, **values: object) -> Any:  # noqa: ANN401 - trytond has no types
    record = pool.get(model)(**values)
    record.save()
    return record


def _products(pool: Any, unit: Any, skus: list[str]) -> dict[str, int]:  # noqa: ANN401
    templates = pool.get("product.template").create(
        [
            {
                "name": f"Product {sku}",
                "default_uom": unit.id,
                "type": "goods",
                "list_price": Decimal(1),
                "products": [("create", [{"suffix_code": sku}])],
            }
            for sku in skus
        ]
    )
    return {sku: template.products[0].id for sku, template in zip(skus, templates, strict=True)}


if __name__ == "__main__":
    main()
