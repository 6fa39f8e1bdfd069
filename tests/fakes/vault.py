"""A fake of HashiCorp Vault: the transit engine's HTTP protocol, over real HTTP, with keys that live in memory.

It answers as Vault's API documentation says ("Transit secrets engine": create key, rotate, encrypt, decrypt), with
Vault's envelope and Vault's errors. Not everything is here: no batches, no derived keys, no signing.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


class VaultRefusal(Exception):  # noqa: N818 - what Vault says, not a failure of ours
    def __init__(self, status: HTTPStatus, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


class FakeVault:
    """`token` is the only one it knows; `mount` is where the transit engine is mounted."""

    def __init__(self, *, token: str = "fake-root-token", mount: str = "transit") -> None:  # noqa: S107 - of a fake
        self.token = token
        self.mount = mount
        self.sealed = False
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self._keys: dict[str, list[AESGCM]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[FakeVault]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def answer(self, path: str, token: str | None, body: dict[str, Any]) -> dict[str, Any] | None:
        if self.sealed:
            raise VaultRefusal(HTTPStatus.SERVICE_UNAVAILABLE, "Vault is sealed")
        if token != self.token:
            raise VaultRefusal(HTTPStatus.FORBIDDEN, "permission denied")
        prefix = f"/v1/{self.mount}/"
        match path.removeprefix(prefix).split("/") if path.startswith(prefix) else []:
            case ["keys", name]:
                self._keys.setdefault(name, [_new_key()])
                return None
            case ["keys", name, "rotate"]:
                self._versions(name).append(_new_key())
                return None
            case ["encrypt", name]:
                return self._encrypt(name, body)
            case ["decrypt", name]:
                return self._decrypt(name, body)
        raise VaultRefusal(HTTPStatus.NOT_FOUND, "no handler for route")

    def _encrypt(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        # A token with the create capability makes a missing key by encrypting with it, as Vault does.
        versions = self._keys.setdefault(name, [_new_key()])
        plaintext = _decoded(body.get("plaintext", ""), "failed to base64-decode plaintext")
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + versions[-1].encrypt(nonce, plaintext, _associated(body))
        text = f"vault:v{len(versions)}:{base64.b64encode(sealed).decode()}"
        return {"ciphertext": text, "key_version": len(versions)}

    def _decrypt(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        versions = self._versions(name)
        vault, _, rest = str(body.get("ciphertext", "")).partition(":v")
        number, _, encoded = rest.partition(":")
        if vault != "vault" or not number.isdigit():
            raise VaultRefusal(HTTPStatus.BAD_REQUEST, "invalid ciphertext: no prefix")
        if not 0 < int(number) <= len(versions):
            raise VaultRefusal(HTTPStatus.BAD_REQUEST, "invalid ciphertext: version is too new")
        raw = _decoded(encoded, "invalid ciphertext: could not decode base64")
        try:
            plaintext = versions[int(number) - 1].decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _associated(body))
        except (InvalidTag, ValueError):
            raise VaultRefusal(HTTPStatus.BAD_REQUEST, "cipher: message authentication failed") from None
        return {"plaintext": base64.b64encode(plaintext).decode()}

    def _versions(self, name: str) -> list[AESGCM]:
        try:
            return self._keys[name]
        except KeyError:
            raise VaultRefusal(HTTPStatus.BAD_REQUEST, "encryption key not found") from None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body: dict[str, Any] = json.loads(self.rfile.read(length) or b"{}")
                fake.requests.append((self.command, self.path, body))
                try:
                    data = fake.answer(self.path, self.headers.get("X-Vault-Token"), body)
                except VaultRefusal as refusal:
                    self._send(refusal.status, {"errors": [refusal.error]})
                    return
                if data is None:
                    self._send(HTTPStatus.NO_CONTENT, None)
                else:
                    self._send(HTTPStatus.OK, _envelope(data))

            do_PUT = do_POST  # noqa: N815 - http.server's name

            def _send(self, status: HTTPStatus, document: dict[str, Any] | None) -> None:
                raw = b"" if document is None else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                pass

        return Handler


def _new_key() -> AESGCM:
    return AESGCM(AESGCM.generate_key(256))


def _associated(body: dict[str, Any]) -> bytes | None:
    encoded = body.get("associated_data")
    return _decoded(encoded, "failed to base64-decode associated_data") if encoded else None


def _decoded(encoded: str, complaint: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise VaultRefusal(HTTPStatus.BAD_REQUEST, complaint) from None


def _envelope(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "request_id": str(uuid.uuid4()),
        "lease_id": "",
        "renewable": False,
        "lease_duration": 0,
        "data": data,
        "wrap_info": None,
        "warnings": None,
        "auth": None,
    }
