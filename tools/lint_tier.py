"""Refuses product code that learns where a tenant lives (tenancy.md: the same code on every tier).

Product packages may not read `.placement` or `.tier`, nor import what describes them. Staff pages (console) and the
migrator may. Usage: python -m tools.lint_tier [ROOT]
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PRODUCT_PACKAGES = ("inventory", "billing", "whitelabel")
FORBIDDEN_ATTRIBUTES = frozenset({"placement", "tier"})
FORBIDDEN_IMPORTS = frozenset({"Placement", "Tier", "placement", "placements", "tier", "tiers"})
TEMPLATE_SUFFIXES = frozenset({".html", ".jinja", ".j2", ".txt", ".xml"})
TEMPLATE_EXPRESSION = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)
TEMPLATE_ATTRIBUTE = re.compile(r"(?:\.|\[\s*['\"])(placement|tier)\b")


class Finding(NamedTuple):
    path: Path
    line: int
    what: str


def findings_in_python(path: Path) -> Iterator[Finding]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        match node:
            case ast.Attribute(attr=name) if name in FORBIDDEN_ATTRIBUTES:
                yield Finding(path, node.lineno, f"reads .{name}")
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=name), *_]) if (
                name in FORBIDDEN_ATTRIBUTES
            ):
                yield Finding(path, node.lineno, f"reads .{name} through getattr")
            case ast.ImportFrom(module=module, names=names):
                imported = {alias.name for alias in names} | {(module or "").rpartition(".")[2]}
                yield from (Finding(path, node.lineno, f"imports {name}") for name in imported & FORBIDDEN_IMPORTS)
            case ast.Import(names=names):
                imported = {alias.name.rpartition(".")[2] for alias in names}
                yield from (Finding(path, node.lineno, f"imports {name}") for name in imported & FORBIDDEN_IMPORTS)


def findings_in_template(path: Path) -> Iterator[Finding]:
    source = path.read_text(encoding="utf-8")
    for expression in TEMPLATE_EXPRESSION.finditer(source):
        for attribute in TEMPLATE_ATTRIBUTE.finditer(expression.group()):
            line = source.count("\n", 0, expression.start() + attribute.start()) + 1
            yield Finding(path, line, f"reads .{attribute.group(1)}")


def findings(root: Path) -> Iterator[Finding]:
    for package in PRODUCT_PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix == ".py":
                yield from findings_in_python(path)
            elif path.suffix in TEMPLATE_SUFFIXES:
                yield from findings_in_template(path)


def main(arguments: list[str]) -> int:
    root = Path(arguments[0]) if arguments else Path("strata")
    found = list(findings(root))
    for finding in found:
        print(f"{finding.path}:{finding.line}: product code {finding.what}; it may not know where a tenant lives")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
