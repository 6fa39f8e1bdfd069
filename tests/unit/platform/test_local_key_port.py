from __future__ import annotations

import base64
import multiprocessing
import pickle
from pathlib import Path

import pytest

from strata.platform.errors import ConfigurationError
from strata.platform.keys.local import LocalKeyPort
from strata.platform.keys.port import SealBrokenError, SecretBytes
from strata.platform.keys.provider import key_port
from strata.platform.settings import Settings

PLAINTEXT = b"a cell's secret"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "local.key"


async def test_what_is_sealed_opens_again_also_after_a_restart(key_file: Path) -> None:
    sealed = await LocalKeyPort(key_file).seal(PLAINTEXT, "cell")
    assert sealed.startswith("local:v1:")
    assert await LocalKeyPort(key_file).unseal(sealed, "cell") == PLAINTEXT
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key_file.parent.iterdir()] == ["local.key"]


async def test_it_never_seals_the_same_text_twice_alike(key_file: Path) -> None:
    port = LocalKeyPort(key_file)
    assert await port.seal(PLAINTEXT, "cell") != await port.seal(PLAINTEXT, "cell")


async def test_another_purpose_another_key_or_altered_text_opens_nothing(key_file: Path, tmp_path: Path) -> None:
    port = LocalKeyPort(key_file)
    sealed = await port.seal(PLAINTEXT, "cell")
    raw = bytearray(base64.b64decode(sealed.removeprefix("local:v1:")))
    raw[-1] ^= 1
    altered = "local:v1:" + base64.b64encode(bytes(raw)).decode()
    for text in (altered, "local:v1:", "local:v1:!!", "", sealed.removeprefix("local:"), "vault:v1:abcd", sealed[:30]):
        with pytest.raises(SealBrokenError) as caught:
            await port.unseal(text, "cell")
        assert PLAINTEXT.decode() not in str(caught.value)
    with pytest.raises(SealBrokenError, match="«server»"):
        await port.unseal(sealed, "server")
    with pytest.raises(SealBrokenError):
        await LocalKeyPort(tmp_path / "other.key").unseal(sealed, "cell")


def test_a_key_that_others_may_read_or_that_is_torn_is_refused(key_file: Path) -> None:
    LocalKeyPort(key_file)
    key_file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        LocalKeyPort(key_file)
    key_file.chmod(0o600)
    key_file.write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="backup"):
        LocalKeyPort(key_file)


def _make(key_file: Path) -> bytes:
    LocalKeyPort(key_file)
    return key_file.read_bytes()


def test_processes_that_start_at_once_agree_on_one_key(key_file: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert len(set(pool.map(_make, [key_file] * 8))) == 1


def test_key_material_does_not_show_itself() -> None:
    secret = SecretBytes(b"material")
    assert "material" not in f"{secret!r} {secret} {[secret]}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


async def test_settings_choose_the_provider(tmp_path: Path) -> None:
    port = key_port(Settings(data_dir=tmp_path))
    assert isinstance(port, LocalKeyPort)
    assert (tmp_path / "keys" / "local.key").exists()
