"""What the rest of Strata knows of key management."""

from __future__ import annotations

from typing import Protocol

from strata.platform.errors import StrataError, UnavailableError


class KeyPort(Protocol):
    """Seals and unseals small secrets. `purpose` is authenticated: text sealed for one purpose opens for no other."""

    async def seal(self, plaintext: bytes, purpose: str) -> str: ...

    async def unseal(self, sealed: str, purpose: str) -> bytes: ...


class SealBrokenError(StrataError):
    """The text was sealed with another key or for another purpose, or was altered."""

    code = "seal-broken"
    title = "Secret cannot be unsealed"

    def __init__(self, purpose: str, provider: str) -> None:
        super().__init__(
            f"A secret for «{purpose}» cannot be unsealed with the {provider} key; check STRATA_KEYS__PROVIDER and that "
            "the key is the one it was sealed with."
        )
        self.purpose = purpose


class KeyUnavailableError(UnavailableError):
    code = "key-unavailable"
    title = "Key service unavailable"


class SecretBytes:
    """Key material that does not show itself in logs, tracebacks with locals, or a debugger's list."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce__(self) -> str:
        message = "secrets are not pickled"
        raise TypeError(message)
