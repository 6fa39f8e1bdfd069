from __future__ import annotations

from pathlib import Path

import pytest

from tools import lint_tier


def write(root: Path, name: str, source: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("def f(context): return context.placement", "reads .placement"),
        ("def f(context): return context.where.tier == 1", "reads .tier"),
        ("def f(context): return getattr(context, 'placement', None)", "reads .placement through getattr"),
        ("from strata.tenancy.context import Tier", "imports Tier"),
        ("from strata.tenancy import placement", "imports placement"),
        ("from strata.tenancy.placement import Anything", "imports placement"),
        ("import strata.tenancy.placement", "imports placement"),
    ],
)
def test_product_code_that_asks_for_the_tier_is_found(tmp_path: Path, source: str, what: str) -> None:
    write(tmp_path, "inventory/service.py", source)

    assert [finding.what for finding in lint_tier.findings(tmp_path)] == [what]
    assert lint_tier.main([str(tmp_path)]) == 1


def test_a_template_that_shows_the_tier_is_found_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, "billing/templates/plan.html", "<p>\nour tier. placement\n{{ context.placement.cell }}\n</p>")

    assert [(finding.line, finding.what) for finding in lint_tier.findings(tmp_path)] == [(3, "reads .placement")]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("inventory/service.py", "tier = 3\nfrontier = context.frontier\nplacement_of_goods = context.placements_seen"),
        ("console/pages.py", "def f(tenant): return tenant.placement.tier"),
        ("migrator/machine.py", "from strata.tenancy.context import Placement"),
    ],
)
def test_staff_code_and_other_words_are_left_alone(tmp_path: Path, name: str, source: str) -> None:
    write(tmp_path, name, source)

    assert lint_tier.main([str(tmp_path)]) == 0
