"""Makes tenants through create_schema, timed one by one, and the rest from the SQL of the migrations. In .venv-bench."""

from __future__ import annotations

import argparse
import json
import time

import django

django.setup()

from django.core.management import call_command  # noqa: E402 - Django wants its set-up first
from django.db import connection  # noqa: E402
from django.db.migrations.executor import MigrationExecutor  # noqa: E402
from django.db.migrations.recorder import MigrationRecorder  # noqa: E402

from tests.bench.peers.schemas.customers.models import Client  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--timed", type=int, required=True, help="made by create_schema, the time of each printed")
    parser.add_argument("--more", type=int, default=0, help="made beside them, untimed and faster")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    given = parser.parse_args()
    if not given.first:
        call_command("migrate_schemas", schema_name="public", verbosity=0)
    times_ms = []
    for number in range(given.first, given.first + given.timed):
        client = Client(schema_name=f"bench{number}", name="Bench")
        begun = time.perf_counter()
        client.save(verbosity=0)  # which calls create_schema
        times_ms.append((time.perf_counter() - begun) * 1e3)
    if given.more:
        replay(range(given.first + given.timed, given.first + given.timed + given.more))
    print(json.dumps(times_ms))


def replay(numbers: range) -> None:
    app, name = "warehouse", "0001_initial"
    statements = ""
    for number in numbers:
        client = Client(schema_name=f"bench{number}", name="Bench")
        client.auto_create_schema = False
        client.save(verbosity=0)
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA {client.schema_name}")
        connection.set_schema(client.schema_name, include_public=False)
        recorder = MigrationRecorder(connection)
        recorder.ensure_schema()
        # Within a tenant's schema: elsewhere the router says that these tables are not wanted.
        statements = statements or rendered(app, name)
        with connection.cursor() as cursor:
            cursor.execute(statements)
        recorder.record_applied(app, name)
        connection.set_schema_to_public()


def rendered(app: str, name: str) -> str:
    loader = MigrationExecutor(connection).loader
    text = "\n".join(loader.collect_sql([(loader.graph.nodes[app, name], False)]))
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))


if __name__ == "__main__":
    main()
