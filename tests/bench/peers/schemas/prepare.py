"""Migrates, and makes one tenant with the products in its schema. Runs in .venv-bench."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import django

django.setup()

from django.core.management import call_command  # noqa: E402 - Django wants its set-up first
from django_tenants.utils import schema_context  # noqa: E402

from tests.bench.peers.schemas.customers.models import Client, Domain  # noqa: E402
from tests.bench.peers.schemas.shop.models import Product  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--skus", type=Path, required=True, help="JSON list")
    parser.add_argument("--host", required=True)
    given = parser.parse_args()
    call_command("migrate_schemas", schema_name="public", verbosity=0)
    client = Client(schema_name="bench", name="Bench")
    client.save(verbosity=0)
    Domain(domain=given.host, tenant=client, is_primary=True).save()
    with schema_context(client.schema_name):
        Product.objects.bulk_create(
            Product(sku=sku, name=f"Product {sku}", barcode=f"40{sku[4:]}", attributes={"colour": "red", "pieces": 6})
            for sku in json.loads(given.skus.read_text())
        )


if __name__ == "__main__":
    main()
