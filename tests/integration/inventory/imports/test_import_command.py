from __future__ import annotations

import json
from pathlib import Path

import pytest

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.command import Command, environment_for
from tests.builders.imports import books, stock_list
from tests.builders.platform import Platform, Tenantry

ROWS = ["a,A,5", "b,B,0", "c,C,many"]


@pytest.fixture
async def context(tenant_on: Tenantry) -> TenantContext:
    return await tenant_on(Tier.SCHEMA)


@pytest.fixture
def command(platform: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for name, value in environment_for(platform).items():
        monkeypatch.setenv(name, value)
    return Command(capsys)


async def test_for_programs_it_prints_lines_and_ends_with_the_summary(
    command: Command, runtime: Runtime, context: TenantContext, tmp_path: Path
) -> None:
    file, report = stock_list(tmp_path / "f.csv", ROWS).path, tmp_path / "refused.json"
    words = ("import", context.slug, file, "--mapping", "stock-list", "--report", report, "--json")
    said = await command(*words)
    assert said.code == 0, said.err
    *progress, summary = [json.loads(line) for line in said.out.splitlines()]
    assert [(each["event"], each["rows"], each["of"]) for each in progress] == [("progress", 3, 3)]
    assert (summary["event"], summary["nothing_to_do"]) == ("summary", False)
    assert (summary["run"]["lines_accepted"], summary["run"]["lines_refused"]) == (1, 2)
    assert summary["run"]["created_by"].startswith("cli/")
    assert [each["code"] for each in json.loads(report.read_text())] == ["quantity-zero", "quantity-invalid"]
    assert (await books(runtime, context)).by_sku == {"a": 5}

    said = await command(*words)
    assert json.loads(said.out.splitlines()[-1])["nothing_to_do"] is True
    assert (await books(runtime, context)).by_sku == {"a": 5}


async def test_for_people_it_says_what_was_done_and_what_was_not(
    command: Command, context: TenantContext, tmp_path: Path
) -> None:
    file = stock_list(tmp_path / "f.csv", ROWS).path
    said = await command("import", context.slug, file, "--mapping", "stock-list")
    assert said.code == 0, said.err
    assert f"Imported «f.csv» into {context.slug}" in said.out
    assert "3 rows: 1 accepted, 2 refused; 1 new products, 1 movements, +5 units, opening stock 0." in said.out
    assert "quantity-invalid" in said.out
    again = await command("import", context.slug, file, "--mapping", "stock-list")
    assert "nothing to do" in again.out


async def test_a_mapping_of_ones_own(
    command: Command, runtime: Runtime, context: TenantContext, tmp_path: Path
) -> None:
    mapping = tmp_path / "mine.toml"
    mapping.write_text(
        """
        title = "Ours"
        file = { delimiter = ";", encoding = "latin-1" }
        product = { sku = { column = "Nr" }, name = { column = "Name" } }
        movement = { quantity = "Menge", warehouse = "HAM", zone = "A", bin = "HAM-A-1" }
        post = [{ kind = "receive" }]
        """
    )
    file = tmp_path / "f.csv"
    file.write_bytes("Nr;Name;Menge\n1;Müsli;7\n".encode("latin-1"))
    said = await command("import", context.slug, file, "--mapping", mapping)
    assert said.code == 0, said.err
    assert (await books(runtime, context)).by_sku == {"1": 7}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"slug": "nobody-here"}, "unknown-tenant"),
        ({"file": "missing.csv"}, "import-file-unreadable"),
        ({"mapping": "missing"}, "import-mapping-unknown"),
        ({"mapping": "missing.toml"}, "import-mapping-refused"),
        ({"report": "r.txt"}, "import-report-unwritable"),
    ],
)
async def test_a_mistake_ends_in_a_sentence(
    command: Command, context: TenantContext, tmp_path: Path, change: dict[str, str], code: str
) -> None:
    file = stock_list(tmp_path / "f.csv", ROWS).path
    given = {
        "slug": context.slug,
        "file": str(file),
        "mapping": "stock-list",
        "report": str(tmp_path / "r.csv"),
        **change,
    }
    words = ("import", given["slug"], given["file"], "--mapping", given["mapping"], "--report", given["report"])
    said = await command(*words, "--json")
    assert (said.code, said.error["code"]) == (1, code)
