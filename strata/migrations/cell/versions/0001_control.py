"""The control schema: fence, secret, enter, tenant, and what revisions of tenant tables call.

What differs from cell to cell (name, role, secret) comes in through settings of the installing transaction, so that the
text of a revision is the same everywhere: see tenancy/provisioning/cells.py.
"""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None

SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    for name in ("control", "door", "tenant_tables", "lockdown"):
        op.execute((SQL / f"0001_{name}.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    op.execute("DROP SCHEMA strata CASCADE")
