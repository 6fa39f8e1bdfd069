"""The embedded key, for development and tests: AES-256-GCM under a key in a file. Settings refuse it elsewhere."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strata.platform.errors import ConfigurationError
from strata.platform.keys.port import SealBrokenError, SecretBytes

_PREFIX = "local:v1:"
_KEY_BYTES = 32
_NONCE_BYTES = 12


class LocalKeyPort:
    def __init__(self, key_file: Path) -> None:
        self._cipher = AESGCM(_read_or_create(key_file).reveal())

    async def seal(self, plaintext: bytes, purpose: str) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, plaintext, purpose.encode())
        return _PREFIX + base64.b64encode(nonce + sealed).decode("ascii")

    async def unseal(self, sealed: str, purpose: str) -> bytes:
        try:
            raw = base64.b64decode(sealed.removeprefix(_PREFIX), validate=True)
            if not sealed.startswith(_PREFIX) or len(raw) <= _NONCE_BYTES:
                raise SealBrokenError(purpose, "local")
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], purpose.encode())
        except (InvalidTag, binascii.Error, ValueError):
            raise SealBrokenError(purpose, "local") from None


def _read_or_create(key_file: Path) -> SecretBytes:
    if not key_file.exists():
        _create(key_file)
    mode = stat.S_IMODE(key_file.stat().st_mode)
    if mode & 0o077:
        message = f"{key_file} may be read by others (mode {mode:04o}); run: chmod 600 {key_file}"
        raise ConfigurationError(message)
    material = key_file.read_bytes()
    if len(material) != _KEY_BYTES:
        message = f"{key_file} is not a key of {_KEY_BYTES} bytes; restore it from a backup: what it sealed opens with no other"
        raise ConfigurationError(message)
    return SecretBytes(material)


def _create(key_file: Path) -> None:
    key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = key_file.with_name(f"{key_file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link, not a rename: of two processes that start at once the second must not replace the first one's key.
        os.link(draft, key_file)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
