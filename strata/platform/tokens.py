"""Who is asking: JSON Web Tokens signed ES256, with the key's thumbprint as `kid` and the keys published as a JWKS."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID, uuid4

import jwt
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from strata.platform.errors import UnauthenticatedError
from strata.platform.keys.port import KeyPort
from strata.platform.settings import TokenSettings
from strata.platform.signing import SigningKey, StoredSigningKey

_ALGORITHM = "ES256"
_CLOCK_SKEW_S = 5
_RELOAD_AT_MOST_EVERY_S = 3.0
_VERIFIED_TOKENS = 16_384
_LONGEST_TOKEN = 8_192

log = structlog.get_logger(__name__)


class Audience(StrEnum):
    TENANT = "tenant"
    STAFF = "staff"


class Claims(msgspec.Struct, frozen=True):
    sub: str
    role: str
    permissions: tuple[str, ...]
    aud: Audience
    iss: str
    iat: int
    exp: int
    jti: str
    tenant: UUID | None = None


class InvalidTokenError(UnauthenticatedError):
    """`reason` is for the log; the client learns only that the token does not count, and why when it has expired."""

    code = "invalid-token"
    title = "Token not accepted"

    def __init__(self, reason: str, *, expired: bool = False) -> None:
        said = "has expired" if expired else "is not valid here"
        super().__init__(
            f"The access token {said}; sign in again or ask for a new one.",
            headers={"WWW-Authenticate": f'Bearer error="invalid_token", error_description="The access token {said}"'},
        )
        self.reason = reason


class SigningKeyStore(Protocol):
    """Where signing keys are kept, private halves sealed."""

    async def load(self) -> Sequence[StoredSigningKey]:
        """All keys that still verify, the current one first."""
        ...

    async def add_current(self, key: StoredSigningKey, *, replacing: str | None) -> bool:
        """Make `key` current and `replacing` previous, in one transaction; False when `replacing` is not current any more."""
        ...


class TokenAuthority:
    """Issues and verifies. Call `start()` first; `verify()` works from memory and costs microseconds when repeated."""

    def __init__(
        self,
        store: SigningKeyStore,
        key_port: KeyPort,
        settings: TokenSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._key_port = key_port
        self._settings = settings
        self._clock = clock
        self._signer: SigningKey | None = None
        self._verifiers: dict[str, ec.EllipticCurvePublicKey] = {}
        self._jwks: dict[str, list[dict[str, Any]]] = {"keys": []}
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()
        self._loaded_at = -_RELOAD_AT_MOST_EVERY_S
        self._reloading = asyncio.Lock()

    @property
    def jwks(self) -> dict[str, list[dict[str, Any]]]:
        """RFC 7517: the current key first, then those that still verify."""
        return self._jwks

    async def start(self) -> None:
        await self._reload()
        if self._signer is None:
            fresh = SigningKey.generate()
            # Of two processes that start at once on an empty catalog one makes the key, and both read it back.
            await self._store.add_current(await fresh.sealed(self._key_port), replacing=None)
            await self._reload()

    async def rotate(self) -> str:
        """Sign with a new key from now on; the old one verifies until the tokens it signed have expired. Returns the kid."""
        await self._reload()
        fresh = SigningKey.generate()
        replacing = None if self._signer is None else self._signer.kid
        await self._store.add_current(await fresh.sealed(self._key_port), replacing=replacing)
        await self._reload()
        return self._current().kid

    def issue(
        self,
        *,
        subject: str,
        tenant: UUID | None,
        role: str,
        permissions: Sequence[str],
        audience: Audience = Audience.TENANT,
        lifetime_s: int | None = None,
    ) -> str:
        """`lifetime_s` is cut to the settings': a key that has been replaced verifies just that long."""
        signer = self._current()
        now = int(self._clock())
        longest = self._settings.lifetime_s
        claims = Claims(
            sub=subject,
            role=role,
            permissions=tuple(permissions),
            aud=audience,
            iss=self._settings.issuer,
            iat=now,
            exp=now + (longest if lifetime_s is None else min(lifetime_s, longest)),
            jti=uuid4().hex,
            tenant=tenant,
        )
        return jwt.encode(
            msgspec.to_builtins(claims), signer.private_key, algorithm=_ALGORITHM, headers={"kid": signer.kid}
        )

    def sign(self, payload: dict[str, str], kind: str) -> str:
        """A JWS over something else than a token, which its `typ` says, and which no verifier of tokens takes for one."""
        signer = self._current()
        return jwt.encode(
            dict(payload), signer.private_key, algorithm=_ALGORITHM, headers={"kid": signer.kid, "typ": kind}
        )

    def verified(self, token: bytes) -> Claims | None:
        """The claims of a token that this process has verified before and that still counts; no await, no signature check."""
        digest = hashlib.sha256(token).digest()
        claims = self._verified.get(digest)
        if claims is None:
            return None
        if claims.exp <= self._clock():
            del self._verified[digest]
            return None
        self._verified.move_to_end(digest)
        return claims

    async def verify(self, token: bytes) -> Claims:
        known = self.verified(token)
        if known is not None:
            return known
        if len(token) > _LONGEST_TOKEN:
            reason = "too long"
            raise InvalidTokenError(reason)
        claims = self._check(token, await self._verifier_for(token))
        self._verified[hashlib.sha256(token).digest()] = claims
        if len(self._verified) > _VERIFIED_TOKENS:
            self._verified.popitem(last=False)
        return claims

    def _check(self, token: bytes, key: ec.EllipticCurvePublicKey) -> Claims:
        try:
            payload = jwt.decode(
                token,
                key,
                # Pinned: what the token says of its own algorithm is never asked (RFC 8725, section 3.1).
                algorithms=[_ALGORITHM],
                audience=[audience.value for audience in Audience],
                issuer=self._settings.issuer,
                leeway=_CLOCK_SKEW_S,
                # Time is checked below, against this authority's clock.
                options={
                    "require": ["sub", "exp", "iat", "iss", "aud", "jti"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            claims = msgspec.convert(payload, Claims)
        except (jwt.InvalidTokenError, msgspec.ValidationError) as error:
            raise InvalidTokenError(str(error)) from None
        now = self._clock()
        if claims.exp <= now:
            reason = "expired"
            raise InvalidTokenError(reason, expired=True)
        if claims.iat > now + _CLOCK_SKEW_S:
            reason = "issued in the future"
            raise InvalidTokenError(reason)
        if (claims.aud is Audience.TENANT) != (claims.tenant is not None):
            reason = "a tenant token names a tenant, a staff token none"
            raise InvalidTokenError(reason)
        return claims

    async def _verifier_for(self, token: bytes) -> ec.EllipticCurvePublicKey:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.InvalidTokenError as error:
            raise InvalidTokenError(str(error)) from None
        if not isinstance(kid, str):
            reason = "no kid"
            raise InvalidTokenError(reason)
        if kid not in self._verifiers:
            await self._reload_for(kid)
        try:
            return self._verifiers[kid]
        except KeyError:
            reason = "unknown kid"
            raise InvalidTokenError(reason) from None

    async def _reload_for(self, kid: str) -> None:
        """Another process may have rotated; made-up kids must not turn into a query each."""
        async with self._reloading:
            due = time.monotonic() - self._loaded_at >= _RELOAD_AT_MOST_EVERY_S
            if kid not in self._verifiers and due:
                await self._reload()

    async def _reload(self) -> None:
        self._loaded_at = time.monotonic()
        stored = await self._store.load()
        signer = self._signer
        if stored and (signer is None or signer.kid != stored[0].kid):
            signer = await SigningKey.unsealed(stored[0], self._key_port)
        verifiers = {key.kid: key.public_key() for key in stored}
        if not verifiers.keys() >= self._verifiers.keys():
            self._verified.clear()  # a key was withdrawn: nothing that it signed may live on here
        self._signer = signer
        self._verifiers = verifiers
        self._jwks = {"keys": [key.public_jwk for key in stored]}

    def _current(self) -> SigningKey:
        if self._signer is None:
            message = "TokenAuthority.start() has not run"
            raise RuntimeError(message)
        return self._signer
