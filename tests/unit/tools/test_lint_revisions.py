"""What a revision may not do, each rule with a text that breaks it and the same text without the breach."""

from __future__ import annotations

from pathlib import Path

import pytest

from strata.platform.database.revisions import Revision
from tests.builders.upgrading import release
from tools.lint_revisions import cell_findings, findings, tenant_findings

TABLE = """
CREATE TABLE colour (
    tenant_id uuid NOT NULL,
    id        uuid NOT NULL DEFAULT strata.uuidv7(),
    name      text NOT NULL,
    CONSTRAINT pk_colour PRIMARY KEY (tenant_id, id),
    CONSTRAINT uq_colour UNIQUE (tenant_id, name)
);
SELECT strata.secure('colour');
"""


def said(sql: str) -> str:
    return " | ".join(each.what for each in tenant_findings(Revision("0009", sql)))


def test_a_proper_table_passes() -> None:
    assert said(TABLE) == ""


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        (TABLE.replace("SELECT strata.secure('colour');", ""), "without strata.secure"),
        (TABLE.replace("SELECT strata", "-- SELECT strata"), "without strata.secure"),
        (TABLE.replace("PRIMARY KEY (tenant_id, id)", "PRIMARY KEY (id)"), "PRIMARY KEY"),
        (TABLE.replace("UNIQUE (tenant_id, name)", "UNIQUE (name)"), "UNIQUE"),
        (TABLE.replace("UNIQUE (tenant_id, name)", "FOREIGN KEY (id) REFERENCES product (id)"), "FOREIGN KEY"),
        ("CREATE TYPE hue AS ENUM ('red');", "type"),
        ("CREATE DOMAIN hue AS text;", "type"),
        ("CREATE EXTENSION citext;", "extension"),
        ("CREATE VIEW reds AS SELECT 1;", "security_invoker"),
        ("CREATE MATERIALIZED VIEW reds AS SELECT 1;", "row-level security"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';", "past every policy"),
        ("CREATE UNIQUE INDEX u ON product (sku);", "unique index"),
        ("CREATE INDEX CONCURRENTLY i ON product (tenant_id, name);", "transaction"),
        ("UPDATE shared.product SET name = '';", "names a schema"),
    ],
)
def test_a_breach_is_found(sql: str, word: str) -> None:
    assert word in said(sql)


def test_a_definer_in_the_cell_pins_its_search_path() -> None:
    sql = "CREATE FUNCTION strata.f() RETURNS void LANGUAGE sql SECURITY DEFINER {} AS 'SELECT 1'"
    assert list(cell_findings(Revision("0009", sql.format("SET search_path = pg_catalog, pg_temp")))) == []
    assert len(list(cell_findings(Revision("0009", sql.format(""))))) == 1


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("ALTER TABLE product DROP COLUMN unit", "ban-drop-column"),
        ("ALTER TABLE product RENAME COLUMN unit TO measure", "renaming-column"),
        ("ALTER TABLE product ALTER COLUMN unit TYPE varchar(8)", "changing-column-type"),
        ("ALTER TABLE product ADD COLUMN colour text NOT NULL", "adding-required-field"),
        ("ALTER TABLE product ALTER COLUMN weight_grams SET NOT NULL", "adding-not-nullable-field"),
        ("CREATE INDEX ix ON product (tenant_id, name)", "require-concurrent-index-creation"),
        ("ALTER TABLE product ADD CONSTRAINT ck CHECK (name <> '')", "constraint-missing-not-valid"),
        ("DROP TABLE product", "ban-drop-table"),
    ],
)
def test_squawk_finds_what_breaks_the_release_before(tmp_path: Path, sql: str, rule: str) -> None:
    found = [each.what for each in findings(release(tmp_path / "r", tenant=[sql])) if each.where == "tenant 9001"]
    assert any(rule in what for what in found)


def test_what_only_expands_passes(tmp_path: Path) -> None:
    sql = "ALTER TABLE product ADD COLUMN colour text NOT NULL DEFAULT 'none'"
    assert [each for each in findings(release(tmp_path / "r", tenant=[sql])) if each.where == "tenant 9001"] == []
