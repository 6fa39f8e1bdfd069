from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from strata.inventory.imports.errors import FileChangedError, FileUnreadableError, UnpackedTooLargeError
from strata.inventory.imports.files import ReadingGivenUpError, SourceFile

TEXT = "sku,name,quantity\n" + "".join(f"a{n},Näme,1\n" for n in range(20_000))


def read(path: Path, encoding: str = "utf-8") -> tuple[str, bytes]:
    with SourceFile(path).open(encoding) as (text, digest):
        return text.read(), digest.value()


def test_the_digest_is_of_the_content_however_it_is_packed_or_called(tmp_path: Path) -> None:
    plain, packed, misnamed = tmp_path / "f.csv", tmp_path / "f.csv.gz", tmp_path / "upload"
    plain.write_bytes(TEXT.encode())
    packed.write_bytes(gzip.compress(TEXT.encode(), mtime=1))
    misnamed.write_bytes(gzip.compress(TEXT.encode(), 1, mtime=2))
    expected = (TEXT, hashlib.sha256(TEXT.encode()).digest())
    assert read(plain) == read(packed) == read(misnamed) == expected


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_bytes(TEXT.encode("utf-8-sig"))
    assert read(file)[0] == TEXT
    file.write_bytes(TEXT.encode("latin-1"))
    assert read(file, "latin-1")[0] == TEXT


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.999])
def test_a_gzip_cut_off_or_damaged_is_told(tmp_path: Path, keep: float) -> None:
    file = tmp_path / "f.csv.gz"
    packed = gzip.compress(TEXT.encode())
    file.write_bytes(packed[: max(int(len(packed) * keep), 3)])
    with pytest.raises(FileUnreadableError, match="damaged or was cut off"):
        read(file)
    spoilt = bytearray(packed)
    spoilt[len(packed) // 2] ^= 0xFF
    file.write_bytes(spoilt)
    with pytest.raises(FileUnreadableError, match="damaged or was cut off"):
        read(file)


def test_a_gzip_that_unpacks_to_more_than_it_may_is_read_no_further(tmp_path: Path) -> None:
    file = tmp_path / "f.csv.gz"
    file.write_bytes(gzip.compress(TEXT.encode()))
    size = len(TEXT.encode())
    with SourceFile(file, limit_bytes=size).open("utf-8") as (text, _):
        assert text.read() == TEXT
    with (
        pytest.raises(UnpackedTooLargeError, match="split it") as refused,
        SourceFile(file, limit_bytes=size - 1).open("utf-8") as (text, _),
    ):
        text.read()
    assert refused.value.status == 413


def test_given_up_nobody_reads_on(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text(TEXT * 10)
    file = SourceFile(path)
    with pytest.raises(ReadingGivenUpError), file.open("utf-8") as (text, _):
        assert text.readline()
        file.give_up()
        text.read()


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadableError, match="No such file"):
        SourceFile(tmp_path / "missing.csv")
    with pytest.raises(FileUnreadableError, match="directory"):
        read(tmp_path)


def test_a_change_between_the_two_readings_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text(TEXT)
    file = SourceFile(path)
    file.check_unchanged()
    path.write_text(TEXT + "b,B,1\n")
    with pytest.raises(FileChangedError):
        file.check_unchanged()
