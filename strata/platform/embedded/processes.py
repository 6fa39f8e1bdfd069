"""Server processes: started apart from our own process group, recognised again after a crash, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from strata.platform.embedded.account import Account

PROC = Path("/proc")
POLL_S = 0.02
# Nothing of the caller's environment: a PGDATA or PGPORT of the person's own must not reach our server.
SERVER_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def spawn(command: Sequence[str], *, cwd: Path, log: int, account: Account | None) -> subprocess.Popen[bytes]:
    """In a session of its own, so that Ctrl-C in the terminal reaches us first and we stop it in order."""
    identity = account.as_popen() if account else {}
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=SERVER_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        umask=0o077,
        **identity,
    )


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """An orphan whose adoptive parent never waits (PID 1 of many containers) stays visible after its end."""
    process = PROC / str(pid)
    try:
        status = (process / "stat").read_text()
        # While other threads are still ending, the process has its sockets.
        threads = len(list((process / "task").iterdir()))
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] == "Z" and threads == 1


def works_in(pid: int, directory: Path) -> bool:
    """Whether the process is the server of this folder, and not a stranger who was given its number later."""
    if PROC.is_dir():
        try:
            return (PROC / str(pid) / "cwd").readlink() == directory
        except OSError:
            return False
    listing = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return str(directory) in listing.stdout


def any_works_in(directory: Path) -> bool:
    if not PROC.is_dir():
        return False
    return any(works_in(int(entry.name), directory) for entry in PROC.iterdir() if entry.name.isdigit())


def wait_until_gone(pid: int, timeout_s: float, child: subprocess.Popen[bytes] | None = None) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        gone = child.poll() is not None if child is not None else not is_alive(pid)
        if gone:
            return True
        time.sleep(POLL_S)
    return False


def stop(pid: int, ways: Sequence[tuple[signal.Signals, float]], child: subprocess.Popen[bytes] | None = None) -> None:
    """Tries each (signal, seconds to wait) in turn and kills what remains."""
    for way, patience_s in (*ways, (signal.SIGKILL, 10.0)):
        try:
            os.kill(pid, way)
        except ProcessLookupError:
            break
        if wait_until_gone(pid, patience_s, child):
            break
    if child is not None:
        child.wait()
