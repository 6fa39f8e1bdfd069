"""HashiCorp Vault's transit engine: the key never leaves Vault, Strata holds sealed text.

The key must be of an AEAD type (aes256-gcm96, Vault's default), because the purpose travels as associated data.
Vault's policy for Strata's token needs `update` on <mount>/encrypt/<key> and <mount>/decrypt/<key>, nothing else.
Source: Vault API documentation, "Transit secrets engine", Encrypt data and Decrypt data.
"""

from __future__ import annotations

import asyncio
import base64
import binascii

import hvac
import hvac.exceptions
import requests

from strata.platform.errors import ConfigurationError
from strata.platform.keys.port import KeyUnavailableError, SealBrokenError
from strata.platform.settings import VaultSettings

_TIMEOUT_S = 5
_REFUSALS = (hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized, hvac.exceptions.InvalidPath)


class VaultTransitKeyPort:
    def __init__(self, settings: VaultSettings) -> None:
        if not settings.address:
            message = "the vault key provider needs STRATA_KEYS__VAULT__ADDRESS and STRATA_KEYS__VAULT__TOKEN"
            raise ConfigurationError(message)
        self._settings = settings
        self._client = hvac.Client(
            url=settings.address, token=settings.token.get_secret_value(), timeout=_TIMEOUT_S, strict_http=True
        )

    def __repr__(self) -> str:
        return f"<VaultTransitKeyPort {self._settings.address}>"

    async def seal(self, plaintext: bytes, purpose: str) -> str:
        return await asyncio.to_thread(self._seal, plaintext, purpose)

    async def unseal(self, sealed: str, purpose: str) -> bytes:
        return await asyncio.to_thread(self._unseal, sealed, purpose)

    def _seal(self, plaintext: bytes, purpose: str) -> str:
        try:
            answer = self._client.secrets.transit.encrypt_data(
                name=self._settings.key,
                plaintext=base64.b64encode(plaintext).decode("ascii"),
                associated_data=_encoded(purpose),
                mount_point=self._settings.mount,
            )
        except (hvac.exceptions.VaultError, requests.RequestException) as error:
            # «from None»: the request, which holds the plaintext, hangs on the original exception.
            raise self._unavailable(error) from None
        return str(answer["data"]["ciphertext"])

    def _unseal(self, sealed: str, purpose: str) -> bytes:
        if not sealed.startswith("vault:"):
            raise SealBrokenError(purpose, "vault")
        try:
            answer = self._client.secrets.transit.decrypt_data(
                name=self._settings.key,
                ciphertext=sealed,
                associated_data=_encoded(purpose),
                mount_point=self._settings.mount,
            )
            return base64.b64decode(answer["data"]["plaintext"], validate=True)
        except (hvac.exceptions.InvalidRequest, binascii.Error):
            raise SealBrokenError(purpose, "vault") from None
        except (hvac.exceptions.VaultError, requests.RequestException) as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> KeyUnavailableError | ConfigurationError:
        where = f"Vault at {self._settings.address}"
        if isinstance(error, _REFUSALS):
            return ConfigurationError(
                f"{where} refused Strata's token for {self._settings.mount}/{self._settings.key} "
                f"({type(error).__name__}); check the token, the mount and the policy."
            )
        return KeyUnavailableError(f"{where} does not answer ({type(error).__name__}); try again shortly.")


def _encoded(purpose: str) -> str:
    return base64.b64encode(purpose.encode()).decode("ascii")
