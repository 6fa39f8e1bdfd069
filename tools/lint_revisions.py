"""Refuses revisions that break the rules of expand and contract, or of tenant tables (docs/operating.md, Schema upgrades).

The text that is replayed is what is looked at, of every revision after the first of each chain: by squawk, which knows
what locks, rewrites or breaks old code, and by the rules below, which squawk cannot know. A line is excused by a comment
above it: `-- squawk-ignore RULE` with the reason beside it. Usage: python -m tools.lint_revisions [MIGRATIONS]
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from strata.platform.database.revisions import Revision, RevisionChain

CHAINS = ("catalog", "cell", "tenant")
# Whoever replays a revision sets both (settings.upgrades), in a transaction of its own for each schema.
RUNNER_SEES_TO_IT = ("require-lock-timeout", "require-statement-timeout", "prefer-robust-stmts")
# Counts of attempts and partitions; money and quantities are bigint by the types of their models.
HARMLESS_HERE = ("prefer-bigint-over-int",)
EXCLUDED = ",".join(RUNNER_SEES_TO_IT + HARMLESS_HERE)
OLDEST_POSTGRES = "15.0"
FOREIGN = {("catalog", "0002"): "prefer-text-field,prefer-identity"}
"""Procrastinate's own schema is what it is."""

_COMMENT = re.compile(r"--[^\n]*")
_TABLE = re.compile(r"\bCREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?([\w.\"]+)\s*\((.*?)\n\)", re.IGNORECASE | re.DOTALL)
_FUNCTION = re.compile(r"\bCREATE\s+(?:OR\s+REPLACE\s+)?FUNCTION\s+([\w.\"]+)(.*?)\bAS\b", re.IGNORECASE | re.DOTALL)
_FORBIDDEN = {
    # Each schema would have a type of its own, and a plan cached in one is refused in the next.
    r"\bCREATE\s+(?:TYPE|DOMAIN)\b": "makes a type: use text with a CHECK",
    r"\bCREATE\s+EXTENSION\b": "makes an extension, which belongs to the whole database",
    r"\bCREATE\s+(?:MATERIALIZED|FOREIGN)\b": "makes what row-level security cannot guard",
    r"\bCREATE\s+(?:OR\s+REPLACE\s+)?VIEW\b(?!.*security_invoker)": "makes a view that runs as its owner: WITH (security_invoker)",
    r"\bSECURITY\s+DEFINER\b": "makes a function that runs past every policy",
    r"\bCONCURRENTLY\b": "cannot run: a revision is replayed in a transaction",
    r"\b(?:FROM|INTO|UPDATE|TABLE|JOIN|ON)\s+(?:shared|main|public|t_[0-9a-f]{32})\.": "names a schema: it stands in thousands",
}


class Finding(NamedTuple):
    where: str
    what: str


def tenant_findings(revision: Revision) -> Iterator[Finding]:
    """Rules of the tables in which tenants' rows stand."""
    sql, where = _COMMENT.sub("", revision.sql), f"tenant {revision.id}"
    for pattern, what in _FORBIDDEN.items():
        if re.search(pattern, sql, re.IGNORECASE | re.DOTALL):
            yield Finding(where, what)
    for name, body in _TABLE.findall(sql):
        if not re.search(rf"strata\.secure\(\s*'{re.escape(name)}'", sql):
            yield Finding(where, f"makes {name} without strata.secure('{name}'): nothing keeps its tenants apart")
        if not re.search(r"PRIMARY\s+KEY\s*\(\s*tenant_id\s*,\s*id\s*\)", body, re.IGNORECASE):
            yield Finding(where, f"makes {name} without PRIMARY KEY (tenant_id, id)")
        for kind, first in re.findall(r"\b(UNIQUE|FOREIGN\s+KEY)\s*\(\s*(\w+)", body, re.IGNORECASE):
            if first.lower() != "tenant_id":
                yield Finding(where, f"makes {name} with a {kind} that does not begin with tenant_id")
    for first in re.findall(r"\bCREATE\s+UNIQUE\s+INDEX\s+\w+\s+ON\s+\w+\s*\(\s*(\w+)", sql, re.IGNORECASE):
        if first.lower() != "tenant_id":
            yield Finding(where, "makes a unique index that does not begin with tenant_id")


def cell_findings(revision: Revision) -> Iterator[Finding]:
    """Rules of functions that run as the administrator."""
    for name, head in _FUNCTION.findall(_COMMENT.sub("", revision.sql)):
        definer = re.search(r"\bSECURITY\s+DEFINER\b", head, re.IGNORECASE)
        if definer and not re.search(r"SET\s+search_path\s*=\s*pg_catalog,\s*pg_temp", head, re.IGNORECASE):
            yield Finding(
                f"cell {revision.id}", f"{name} runs as its owner without SET search_path = pg_catalog, pg_temp"
            )


def squawk_findings(chain: str, revision: Revision, folder: Path) -> Iterator[Finding]:
    file = folder / f"{chain}_{revision.id}.sql"
    file.write_text(revision.sql, encoding="utf-8")
    excluded = ",".join(filter(None, (EXCLUDED, FOREIGN.get((chain, revision.id)))))
    squawk = Path(sys.executable).with_name("squawk")
    arguments = ["--assume-in-transaction", "--pg-version", OLDEST_POSTGRES, "--reporter", "gcc", "--exclude", excluded]
    done = subprocess.run([squawk, *arguments, file], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(str(file)):
            yield Finding(f"{chain} {revision.id}", line.removeprefix(f"{file}:"))
    if done.returncode and not done.stdout:
        yield Finding(f"{chain} {revision.id}", f"squawk could not read it: {done.stderr.strip()}")


def findings(migrations: Path) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        for chain in CHAINS:
            for revision in RevisionChain(migrations / chain).revisions[1:]:
                yield from squawk_findings(chain, revision, Path(folder))
                match chain:
                    case "tenant":
                        yield from tenant_findings(revision)
                    case "cell":
                        yield from cell_findings(revision)


def main(arguments: list[str]) -> int:
    found = list(findings(Path(arguments[0]) if arguments else Path("strata/migrations")))
    for finding in found:
        print(f"{finding.where}: {finding.what}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
