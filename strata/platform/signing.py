"""Signing keys: P-256, named by their RFC 7638 thumbprint, the private half only ever stored sealed."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strata.platform.keys.port import KeyPort

SEAL_PURPOSE = "signing-key"
_COORDINATE_BYTES = 32


class StoredSigningKey(msgspec.Struct, frozen=True):
    kid: str
    private_sealed: str
    public_jwk: dict[str, Any]

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return ec.EllipticCurvePublicNumbers(
            x=int.from_bytes(_decoded(self.public_jwk["x"])),
            y=int.from_bytes(_decoded(self.public_jwk["y"])),
            curve=ec.SECP256R1(),
        ).public_key()


class SigningKey:
    def __init__(self, private_key: ec.EllipticCurvePrivateKey) -> None:
        self.private_key = private_key
        numbers = private_key.public_key().public_numbers()
        x, y = (_encoded(value.to_bytes(_COORDINATE_BYTES)) for value in (numbers.x, numbers.y))
        # RFC 7638: the required members only, in lexicographic order, without white space.
        canonical = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
        self.kid = _encoded(hashlib.sha256(canonical.encode()).digest())
        self.public_jwk: dict[str, Any] = {
            "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid, "use": "sig", "alg": "ES256",
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"<SigningKey {self.kid}>"

    @classmethod
    def generate(cls) -> SigningKey:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    async def unsealed(cls, stored: StoredSigningKey, key_port: KeyPort) -> SigningKey:
        der = await key_port.unseal(stored.private_sealed, SEAL_PURPOSE)
        private_key = serialization.load_der_private_key(der, password=None)
        if not isinstance(private_key, ec.EllipticCurvePrivateKey):
            message = f"signing key {stored.kid} is not an elliptic curve key"
            raise TypeError(message)
        return cls(private_key)

    async def sealed(self, key_port: KeyPort) -> StoredSigningKey:
        der = self.private_key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return StoredSigningKey(self.kid, await key_port.seal(der, SEAL_PURPOSE), self.public_jwk)


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
