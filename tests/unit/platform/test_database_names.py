from __future__ import annotations

import pytest

from strata.platform.database.addresses import for_asyncpg, for_psycopg, libpq, parse
from strata.platform.database.names import literal, quoted
from strata.platform.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "sql"), [("t_1", '"t_1"'), ('a"b', '"a""b"'), ("Übung", '"Übung"'), ("select", '"select"')]
)
def test_quoted(name: str, sql: str) -> None:
    assert quoted(name) == sql


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "ü" * 32])
def test_what_cannot_be_an_identifier(name: str) -> None:
    with pytest.raises(ValueError, match="identifier"):
        quoted(name)


def test_literal_escapes_quotes_and_backslashes() -> None:
    assert literal("o'hara\\") == "E'o''hara\\\\'"
    with pytest.raises(ValueError, match="zero byte"):
        literal("a\0")


def test_forms_of_an_address() -> None:
    url = parse("postgres://ann:s%40cret@db.example:5433/main?sslmode=require")
    assert libpq(url) == "postgresql://ann:s%40cret@db.example:5433/main?sslmode=require"
    assert for_asyncpg(url).query == {"ssl": "require"}
    assert for_psycopg(url).drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "dsn", ["", "nonsense", "mysql://u:geheim@h/d", "postgresql://u:geheim@h", "postgresql://u:geheim@h:x/d"]
)
def test_a_bad_address_is_refused_without_repeating_it(dsn: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(dsn)
    assert "geheim" not in str(refused.value)
