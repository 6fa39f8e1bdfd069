"""A streaming standby of an embedded server: for tests, and to try reads on replicas on one machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import structlog
from sqlalchemy import make_url

from strata.platform.embedded import processes
from strata.platform.embedded.account import Account
from strata.platform.embedded.postgres import EmbeddedPostgres
from strata.platform.errors import ConfigurationError

log = structlog.get_logger(__name__)

SETTINGS = {
    # Without it, clean-up on the primary cancels reads here.
    "hot_standby_feedback": "on",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "500ms",
}


class EmbeddedStandby(EmbeddedPostgres):
    """Copied from the primary at its first start, with its roles and passwords; follows it from then on."""

    def __init__(self, data_dir: Path, name: str, primary_dsn: str, *, durable: bool = True) -> None:
        super().__init__(data_dir, name, durable=durable, settings=SETTINGS)
        self._primary = make_url(primary_dsn)

    def _initialise(self, binaries: Path, account: Account | None) -> None:
        if self.initialised:
            self._check_existing()
            return
        unfinished = self.directory.path / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password_file = self._write("pgpass", f"*:*:*:{self._primary.username}:{self._primary.password}\n")
        # The superuser's is replicated like everything else.
        self._write("password", str(self._primary.password))
        if account:
            account.own(unfinished)
            account.own(password_file)
        log.info("copying a PostgreSQL cluster", server=self.name, folder=str(self._data))
        source = (
            f"host={self._primary.host} port={self._primary.port} user={self._primary.username}"
            f" application_name={self.name} passfile={password_file}"
        )
        command = [
            *(str(binaries / "pg_basebackup"), "--pgdata", str(unfinished), "--dbname", source),
            *("--wal-method", "stream", "--checkpoint", "fast", "--write-recovery-conf", "--no-password"),
        ]
        output = self.directory.open_log()
        try:
            process = processes.spawn(command, cwd=unfinished, log=output, account=account)
            failed = process.wait() != 0
        finally:
            os.close(output)
        if failed:
            raise ConfigurationError(f"The cluster could not be copied:\n{self.directory.last_log_lines()}")
        unfinished.rename(self._data)

    def _write(self, name: str, text: str) -> Path:
        path = self.directory.path / name
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        return path
