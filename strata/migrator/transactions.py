"""From messages to transactions, in commit order, one change at a time.

A transaction is never held as a whole: PostgreSQL sends it after its commit, change by change (what does not fit its
logical_decoding_work_mem waits on the source's disk), and the applier takes it in pieces inside one target
transaction. One that is streamed while still in progress waits in a file here, because it may yet abort.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Generator
from typing import IO

from strata.migrator.pgoutput import (
    Begin,
    Commit,
    Message,
    Origin,
    Relation,
    StreamAbort,
    StreamCommit,
    StreamStart,
    decode,
    split_streamed,
)
from strata.migrator.replication_errors import ProtocolError

SPOOL_IN_MEMORY_BYTES = 256 * 1024

_CHANGES = frozenset(b"IUDTM")
_OUTSIDE_A_TRANSACTION_NUMBER = frozenset(b"EO")
"""Messages that carry no transaction number even inside a stream block."""
_KEPT_HERE = (Origin, StreamStart, StreamAbort)
_RECORD = struct.Struct("!II")


class Transactions:
    """`take` each message in turn. What came to the source by replication is dropped, as the option `origin = none`
    does on the source itself from version 16 on; without it the two streams of a retention would feed each other.
    """

    def __init__(self) -> None:
        self._skipping = False
        self._spools: dict[int, _Spool] = {}
        self._streaming: _Spool | None = None

    @property
    def spooled(self) -> int:
        """Transactions in progress on the source of which a part is here."""
        return len(self._spools)

    @property
    def passing(self) -> bool:
        """Whether changes of the transaction at hand go through as they come."""
        return self._streaming is None and not self._skipping

    def close(self) -> None:
        for spool in self._spools.values():
            spool.file.close()
        self._spools.clear()

    def take(self, data: bytes) -> Message | Generator[Message] | None:
        """The message, if it is to be acted on; all those of a streamed transaction when it has committed."""
        kind = data[0]
        if self._streaming is not None:
            self._spool(data)
            return None
        if kind in _CHANGES:
            return None if self._skipping else decode(data)
        message = decode(data)
        match message:
            case Begin():
                self._skipping = False
            case Origin():
                self._skipping = True
            case StreamStart(xid=xid):
                if xid not in self._spools:
                    self._spools[xid] = _Spool()
                self._streaming = self._spools[xid]
            case StreamAbort():
                self._abort(message)
            case StreamCommit(xid=xid):
                spool = self._spools.pop(xid, None)
                return spool.replay(message) if spool else None
            case _:
                pass
        return None if isinstance(message, _KEPT_HERE) else message

    def _spool(self, data: bytes) -> None:
        assert self._streaming is not None  # noqa: S101 - for the type checker; take() has looked
        if data[0] in _OUTSIDE_A_TRANSACTION_NUMBER:
            if data[:1] == b"E":
                self._streaming = None
            else:
                self._streaming.from_elsewhere = True
            return
        self._streaming.add(data)

    def _abort(self, message: StreamAbort) -> None:
        if message.xid == message.subtransaction:
            if (spool := self._spools.pop(message.xid, None)) is not None:
                spool.file.close()
        elif (spool := self._spools.get(message.xid)) is not None:
            spool.aborted.add(message.subtransaction)


class _Spool:
    """A transaction that has not ended: on disk as soon as it is not small."""

    def __init__(self) -> None:
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SPOOL_IN_MEMORY_BYTES)  # noqa: SIM115 - lives until the transaction ends
        self.aborted: set[int] = set()
        self.from_elsewhere = False

    def add(self, data: bytes) -> None:
        xid, message = split_streamed(data)
        self.file.write(_RECORD.pack(len(message), xid))
        self.file.write(message)

    def replay(self, commit: StreamCommit) -> Generator[Message]:
        with self.file:
            yield Begin(commit.commit_lsn, commit.commit_time_us, commit.xid)
            self.file.seek(0)
            while header := self.file.read(_RECORD.size):
                size, xid = _RECORD.unpack(header)
                data = self.file.read(size)
                if len(data) != size:
                    raise ProtocolError("a streamed transaction's file is cut short")
                # A relation is described once, be it in a subtransaction that was rolled back.
                if (message := self._wanted(data, xid)) is not None:
                    yield message
            yield Commit(commit.commit_lsn, commit.end_lsn, commit.commit_time_us)

    def _wanted(self, data: bytes, xid: int) -> Message | None:
        if self.from_elsewhere or xid in self.aborted:
            return message if isinstance(message := decode(data), Relation) else None
        return decode(data)
