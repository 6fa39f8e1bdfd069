"""A file as a stream of text: unpacked when it is gzip, digested on the way, never in memory as a whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from strata.inventory.imports.errors import FileChangedError, FileUnreadableError, UnpackedTooLargeError

_GZIP_MAGIC = b"\x1f\x8b"
_BUFFER_BYTES = 256 * 1024


class ReadingGivenUpError(Exception):
    """Nobody waits for what is read any more."""


class SourceFile:
    """A file that is read twice and must be the same both times."""

    def __init__(self, path: Path, name: str | None = None, limit_bytes: int | None = None) -> None:
        """`limit_bytes`: of what it unpacks to. A few kilobytes of gzip can keep a thread busy for hours."""
        self.path = path
        self.name = name or path.name
        self.limit_bytes = limit_bytes
        self.given_up = False
        self._stamp = self._stamped()

    @contextmanager
    def open(self, encoding: str) -> Iterator[tuple[io.TextIOWrapper, Digest]]:
        """Its text, and the digest of the unpacked bytes, complete once the text has been read to its end.

        Bytes that are no text in `encoding` come through as lone surrogates: the row that has them is refused, not
        the file.
        """
        try:
            with self.path.open("rb") as file, _unpacked(file) as plain:
                digest = Digest(plain, self)
                # -sig takes the byte order mark off, where there is one.
                name = "utf-8-sig" if encoding.lower().replace("_", "-") in {"utf-8", "utf8"} else encoding
                buffered = io.BufferedReader(digest, _BUFFER_BYTES)
                yield io.TextIOWrapper(buffered, name, "surrogateescape", newline=""), digest
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            message = f"«{self.name}» is damaged or was cut off ({error}); fetch it again."
            raise FileUnreadableError(message) from error
        except (UnicodeError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            message = f"«{self.name}» cannot be read: {reason}."
            raise FileUnreadableError(message) from error

    def give_up(self) -> None:
        """Whoever reads it stops. A thread cannot be cancelled, and keeps its process from ending."""
        self.given_up = True

    def check_unchanged(self) -> None:
        if self._stamped() != self._stamp:
            raise FileChangedError(self.name)

    def _stamped(self) -> tuple[int, int, int]:
        try:
            status = self.path.stat()
        except OSError as error:
            message = f"«{self.name}» cannot be read: {error.strerror}."
            raise FileUnreadableError(message) from error
        return status.st_ino, status.st_size, status.st_mtime_ns


class Digest(io.RawIOBase):
    """Hashes what passes through. Of the unpacked bytes: the same rows packed again are the same import."""

    def __init__(self, source: io.BufferedIOBase, file: SourceFile) -> None:
        super().__init__()
        self._source = source
        self._file = file
        self._size = 0
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - the buffer protocol has a type from Python 3.12 on
        if self._file.given_up:
            raise ReadingGivenUpError
        view = memoryview(buffer).cast("B")
        data = self._source.read(len(view))
        view[: len(data)] = data
        self._hash.update(data)
        self._size += len(data)
        limit_bytes = self._file.limit_bytes
        if limit_bytes is not None and self._size > limit_bytes:
            raise UnpackedTooLargeError(limit_bytes)
        return len(data)

    def value(self) -> bytes:
        return self._hash.digest()


@contextmanager
def _unpacked(file: io.BufferedReader) -> Iterator[io.BufferedIOBase]:
    """By content, not by name: an upload has no name one could trust."""
    if file.peek(2)[:2] != _GZIP_MAGIC:
        yield file
        return
    with gzip.open(file, "rb") as plain:
        yield plain
