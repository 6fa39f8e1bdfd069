"""The tables and functions of one tenant alone, derived from those of Strata so that the two stay the same.

What goes is what tenancy costs: tenant_id in rows, keys, indexes and arguments, partitions by tenant, row-level
security. What is left is what one would have written for a single organisation.
"""

from __future__ import annotations

import re
from pathlib import Path

import strata

SQL = Path(strata.__file__).with_name("migrations") / "tenant" / "sql"

_FILES = (
    "0001_inventory",
    "0001_post_movement",
    "0001_post_movements",
    "0002_job_runs",
    "0003_post_movements",
    "0006_post_movements",
)
"""What the two measured handlers stand on, in the order of the revisions."""
_LEFT_OUT = {
    "0006_custom_fields": "each tenant's own fields: the columns are below, nothing of ours looks for values here"
}
_TOUCHES_THEM = re.compile(
    r"\bpost_movements?\b|\b(?:TABLE|ON|INTO|UPDATE) (?:product|bin|stock_balance|stock_ledger|movement|idempotency)\b"
)

_REMOVALS = (
    (r"--[^\n]*", ""),
    (r"(?m)^ *SELECT strata\.(?:partition_by_tenant|secure)\([^;]*;\n", ""),
    (r"(?m)^ *tenant_id +uuid +NOT NULL,\n", ""),
    (r" PARTITION BY HASH \(tenant_id\)", ""),
    (r"\bstrata\.uuidv7\(\)", "uuidv7()"),
    (r"\bstrata\.emit\(", "emit("),
    (r"\(tenant_id, ", "("),
    (r"(_|\b)tenant_id_", r"\1"),
    (r"\b(?:\w+\.)?tenant_id = (?:p_tenant|\w+\.tenant_id) AND ", ""),
    (r"\bp_tenant uuid,\s*", ""),
    (r"\bp_tenant,\s*", ""),
)

# One organisation tells of its movements too; nobody fetches the events here, on either side.
_OUTBOX = """
CREATE TABLE outbox (
    position    bigint      GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_outbox PRIMARY KEY,
    event_id    uuid        NOT NULL DEFAULT uuidv7(),
    type        text        NOT NULL,
    version     integer     NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT transaction_timestamp(),
    payload     jsonb       NOT NULL
);
CREATE FUNCTION emit(p_type text, p_version integer, p_payload jsonb) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (type, version, payload) VALUES (p_type, p_version, p_payload);
END
$$;
"""


_COLUMNS = """
ALTER TABLE product ADD COLUMN custom jsonb NOT NULL DEFAULT '{}';
ALTER TABLE movement ADD COLUMN custom jsonb NOT NULL DEFAULT '{}';
"""


def statements() -> list[str]:
    """In the order of Strata's own revisions; raises when something of tenancy is left that this does not know."""
    files = {file.stem: _without_tenancy(file.read_text(encoding="utf-8")) for file in sorted(SQL.glob("*.sql"))}
    for name, text in files.items():
        if name in _LEFT_OUT:
            continue
        left = re.search(r".*(?:tenant|strata\.).*", text) if name in _FILES else _TOUCHES_THEM.search(text)
        if left:
            message = f"{name}.sql: the plain peer does not know what to make of: {left.group().strip()}"
            raise ValueError(message)
    return [_OUTBOX, *(files[name] for name in _FILES), _COLUMNS]


def _without_tenancy(text: str) -> str:
    for pattern, replacement in _REMOVALS:
        text = re.sub(pattern, replacement, text)
    return text
