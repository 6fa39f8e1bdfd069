"""Chains of revisions are rendered as text that names no schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.platform.database.revisions import RevisionChain
from strata.platform.errors import ConfigurationError

FIRST = """
from alembic import op
revision = "0001"
down_revision = None
def upgrade():
    op.execute("SELECT format('%I', 'x') -- 100 % literal, a::cast")
"""
SECOND = """
import sqlalchemy as sa
from alembic import op
revision = "0002"
down_revision = "0001"
def upgrade():
    op.add_column("product", sa.Column("colour", sa.Text(), server_default="red"))
"""


@pytest.fixture
def chain(tmp_path: Path) -> RevisionChain:
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "0001.py").write_text(FIRST)
    (versions / "0002.py").write_text(SECOND)
    return RevisionChain(tmp_path)


def test_oldest_first_and_text_left_alone(chain: RevisionChain) -> None:
    first, second = chain.revisions
    assert "SELECT format('%I', 'x') -- 100 % literal, a::cast" in first.sql
    assert second.sql.strip() == "ALTER TABLE product ADD COLUMN colour TEXT DEFAULT 'red';"
    assert chain.head == "0002"


def test_what_a_schema_lacks(chain: RevisionChain) -> None:
    assert [each.id for each in chain.after(None)] == ["0001", "0002"]
    assert [each.id for each in chain.after("0001")] == ["0002"]
    assert chain.after("0002") == ()


def test_a_schema_from_the_future_is_refused(chain: RevisionChain) -> None:
    with pytest.raises(ConfigurationError, match="0007"):
        chain.after("0007")
