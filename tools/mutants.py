"""python tools/mutants.py [NAME …]: takes the migrator's guards away, one after another, and sees a test go red for each.

tools/mutants.toml lists them: what has hurt others, the guard against it as a piece of text, what stands in its place,
and the test that must fail then. It all happens in a copy of the tree. Exit code 1 when a mutant survives, when its
text is not found any more, or when a test fails without any mutant.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".toml")
_LEFT_OUT = (".git", ".venv", ".strata", ".*_cache", "__pycache__", ".hypothesis", "node_modules")
_TEST_S = 120
_PASSED, _FAILED = 0, 1


class Verdict(StrEnum):
    KILLED = "killed"
    SURVIVED = "SURVIVED"
    STALE = "STALE: its text is not there, or more than once"
    BROKEN = "BROKEN: no test failed, pytest did"


class Mutant:
    def __init__(self, name: str, entry: dict[str, object]) -> None:
        self.name = name
        self.pitfall = str(entry["pitfall"])
        self.test = str(entry["test"])
        edits = entry["edits"]
        assert isinstance(edits, list)  # noqa: S101 - the list is ours
        self.edits = [(str(edit["file"]), str(edit["guard"]), str(edit["instead"])) for edit in edits]

    def fits(self, tree: Path) -> bool:
        return all((tree / file).read_text(encoding="utf-8").count(guard) == 1 for file, guard, _ in self.edits)

    def apply(self, tree: Path) -> dict[Path, str]:
        """What the files were before."""
        before: dict[Path, str] = {}
        for name, guard, instead in self.edits:
            file = tree / name
            text = file.read_text(encoding="utf-8")
            before.setdefault(file, text)
            file.write_text(text.replace(guard, instead), encoding="utf-8")
        return before


def main() -> int:
    # So that the copy goes when the run is stopped.
    signal.signal(signal.SIGTERM, _leave)
    wanted = set(sys.argv[1:])
    entries = tomllib.loads(LIST.read_text(encoding="utf-8"))
    mutants = [Mutant(name, entry) for name, entry in entries.items() if not wanted or name in wanted]
    if unknown := wanted - entries.keys():
        sys.exit(f"No mutant is named {', '.join(sorted(unknown))}.")
    with tempfile.TemporaryDirectory(prefix="strata-mutants-") as directory:
        # The test servers run as another user, who must get through.
        Path(directory).chmod(0o755)
        tree = Path(directory) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        if _pytest(tree, sorted({mutant.test for mutant in mutants}), _TEST_S * len(mutants)) != _PASSED:
            print("The tests fail as the code is: nothing can be learnt from them.")
            return 1
        found = [(mutant, *_judge(mutant, tree)) for mutant in mutants]
    _show(found)
    return int(any(verdict is not Verdict.KILLED for _, verdict, _ in found))


def _judge(mutant: Mutant, tree: Path) -> tuple[Verdict, float]:
    begun = time.monotonic()
    verdict = Verdict.STALE
    if mutant.fits(tree):
        before = mutant.apply(tree)
        try:
            code = _pytest(tree, [mutant.test], _TEST_S)
        finally:
            for file, text in before.items():
                file.write_text(text, encoding="utf-8")
        verdict = {_PASSED: Verdict.SURVIVED, _FAILED: Verdict.KILLED}.get(code, Verdict.BROKEN)
    took_s = time.monotonic() - begun
    print(f"{mutant.name}: {verdict} ({took_s:.0f} s)", flush=True)
    return verdict, took_s


def _pytest(tree: Path, tests: Sequence[str], within_s: int) -> int:
    """Its exit code. A guard may be what keeps something from waiting for ever: that counts as a failure."""
    options = ["-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", "--timeout", str(_TEST_S)]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    process = subprocess.Popen(command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=within_s + _TEST_S)
    except subprocess.TimeoutExpired:
        return _FAILED
    finally:
        # pytest ends its servers when it is asked to.
        if process.poll() is None:
            process.terminate()
            process.communicate()
    if process.returncode not in {_PASSED, _FAILED} or (process.returncode and len(tests) > 1):
        print(output[-3000:])
    return process.returncode


def _show(found: Sequence[tuple[Mutant, Verdict, float]]) -> None:
    width = max(len(mutant.pitfall) for mutant, _, _ in found)
    print()
    for mutant, verdict, took_s in found:
        print(f"{mutant.pitfall:<{width}}  {verdict:<9}  {took_s:4.0f} s  {mutant.test.partition('::')[2]}")
    killed = sum(verdict is Verdict.KILLED for _, verdict, _ in found)
    print(f"\n{killed} of {len(found)} guards are missed by a test when they are taken away.")


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main())
