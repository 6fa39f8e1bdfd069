"""The operating-system account PostgreSQL runs under when Strata is started by root: it refuses to run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple, TypedDict

import structlog

from strata.platform.errors import ConfigurationError

log = structlog.get_logger(__name__)

OWN_ACCOUNT = "strata-postgres"
DISTRIBUTION_ACCOUNT = "postgres"


class PopenIdentity(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


class Account(NamedTuple):
    name: str
    uid: int
    gid: int

    def as_popen(self) -> PopenIdentity:
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        os.chown(path, self.uid, self.gid)


def account_for(data: Path) -> Account | None:
    """Whom to run as; None: as ourselves. A cluster that exists is run by its owner, whoever starts Strata."""
    if os.geteuid() != 0:
        if data.exists() and data.stat().st_uid != os.geteuid():
            raise ConfigurationError(
                f"{data} belongs to {_name_of(data.stat().st_uid)}: "
                "start Strata as that user or as root, or give it another directory with --data-dir."
            )
        return None
    if data.exists() and data.stat().st_uid != 0:
        owner = data.stat()
        return Account(_name_of(owner.st_uid), owner.st_uid, owner.st_gid)
    return _find(OWN_ACCOUNT) or _find(DISTRIBUTION_ACCOUNT) or _create()


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _find(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, entry.pw_uid, entry.pw_gid)


def _create() -> Account:
    if shutil.which("useradd"):
        command = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--user-group", OWN_ACCOUNT]
    elif shutil.which("adduser"):
        command = ["adduser", "-S", "-D", "-H", OWN_ACCOUNT]
    else:
        raise ConfigurationError(
            "PostgreSQL does not run as root, and there is neither useradd nor adduser to make an account for it: "
            "start Strata as an ordinary user, or set STRATA_DATABASE_URL."
        )
    log.info("creating an account for PostgreSQL, which does not run as root", account=OWN_ACCOUNT)
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    account = _find(OWN_ACCOUNT)
    if account is None:
        raise ConfigurationError(
            f"The account {OWN_ACCOUNT} could not be made ({outcome.stderr.strip()}): "
            "start Strata as an ordinary user, or set STRATA_DATABASE_URL."
        )
    return account


def let_through(account: Account, folder: Path) -> None:
    """Opens the way to `folder` for the account: o+x where it is missing (pass, not list), and says so."""
    for step in (*reversed(folder.parents), folder):
        status = step.stat()
        if not _may(account, status, stat.S_IXOTH):
            log.warning("letting PostgreSQL's account pass through a folder (chmod o+x)", folder=str(step))
            step.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)


def let_read(account: Account, tree: Path) -> None:
    """For packages installed under a strict umask: the account must be able to run the server's programs."""
    for path in (tree, *tree.rglob("*")):
        status = path.stat()
        wanted = stat.S_IROTH | (stat.S_IXOTH if status.st_mode & stat.S_IXUSR else 0)
        if not _may(account, status, wanted):
            path.chmod(stat.S_IMODE(status.st_mode) | wanted)


def _may(account: Account, status: os.stat_result, wanted: int) -> bool:
    """`wanted` in the bits for others; compared with those that apply to the account."""
    if status.st_uid == account.uid:
        wanted <<= 6
    elif status.st_gid == account.gid:
        wanted <<= 3
    return status.st_mode & wanted == wanted
