"""Tokens: what is accepted, what is not, and what rotation does to both. The store here keeps keys in memory."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strata.identity.roles import Role, permissions_of
from strata.identity.tokens import staff_token, tenant_token
from strata.platform import tokens as tokens_module
from strata.platform.errors import InvalidInputError
from strata.platform.keys.local import LocalKeyPort
from strata.platform.settings import TokenSettings
from strata.platform.signing import SigningKey, StoredSigningKey
from strata.platform.tokens import Audience, InvalidTokenError, TokenAuthority

TENANT = UUID("0190a3a0-0000-7000-8000-000000000001")


class KeysInMemory:
    """A SigningKeyStore for one process."""

    def __init__(self) -> None:
        self.keys: list[StoredSigningKey] = []
        self.loads = 0

    async def load(self) -> Sequence[StoredSigningKey]:
        self.loads += 1
        return list(self.keys)

    async def add_current(self, key: StoredSigningKey, *, replacing: str | None) -> bool:
        current = self.keys[0].kid if self.keys else None
        if current != replacing:
            return False
        self.keys.insert(0, key)
        return True


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> KeysInMemory:
    return KeysInMemory()


@pytest.fixture
def local_keys(tmp_path: Path) -> LocalKeyPort:
    return LocalKeyPort(tmp_path / "key")


@pytest.fixture
async def authority(store: KeysInMemory, local_keys: LocalKeyPort, clock: Clock) -> TokenAuthority:
    return await started(store, local_keys, clock)


async def started(store: KeysInMemory, keys: LocalKeyPort, clock: Clock) -> TokenAuthority:
    authority = TokenAuthority(store, keys, TokenSettings(), clock)
    await authority.start()
    return authority


def issued(authority: TokenAuthority, **overrides: Any) -> bytes:  # noqa: ANN401
    options: dict[str, Any] = {"subject": "ann", "tenant": TENANT, "role": "viewer", "permissions": ["stock:read"]}
    return authority.issue(**{**options, **overrides}).encode()


def forged(payload: dict[str, Any], key: object, algorithm: str, kid: str | None) -> bytes:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(payload, key, algorithm=algorithm, headers=headers).encode()  # type: ignore[arg-type]


def payload_of(token: bytes) -> dict[str, Any]:
    part = token.split(b".")[1]
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    return decoded


async def test_what_is_issued_is_verified_with_all_it_says(authority: TokenAuthority) -> None:
    token = issued(authority)
    claims = await authority.verify(token)
    assert (claims.sub, claims.tenant, claims.role, claims.permissions) == ("ann", TENANT, "viewer", ("stock:read",))
    assert (claims.aud, claims.iss) == (Audience.TENANT, "strata")
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "JWT", "kid": authority.jwks["keys"][0]["kid"]}
    assert authority.verified(token) is claims, "the second time costs no signature"


async def test_anybody_can_verify_with_the_published_keys(authority: TokenAuthority) -> None:
    token = issued(authority)
    (published,) = authority.jwks["keys"]
    assert not {"d", "p", "q"} & published.keys()
    key = jwt.PyJWK(published)
    assert jwt.decode(token, key, algorithms=["ES256"], audience="tenant")["sub"] == "ann"


def test_the_kid_is_the_keys_rfc_7638_thumbprint() -> None:
    key = SigningKey.generate()
    required = {name: key.public_jwk[name] for name in ("crv", "kty", "x", "y")}
    canonical = json.dumps(required, sort_keys=True, separators=(",", ":")).encode()
    digest = base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
    assert key.kid == digest
    assert key.kid in repr(key)


async def test_forgeries_are_refused(authority: TokenAuthority) -> None:
    token = issued(authority)
    payload, kid = payload_of(token), jwt.get_unverified_header(token)["kid"]
    published = authority.jwks["keys"][0]
    public_pem = jwt.PyJWK(published).key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head, body, signature = token.split(b".")
    other_body = base64.urlsafe_b64encode(json.dumps({**payload, "role": "administrator"}).encode()).rstrip(b"=")
    attempts = {
        "no signature": forged(payload, None, "none", kid),
        "public key as HMAC secret": _hmac_forgery(payload, public_pem, kid),
        "another key, our kid": forged(payload, ec.generate_private_key(ec.SECP256R1()), "ES256", kid),
        "unknown kid": forged(payload, ec.generate_private_key(ec.SECP256R1()), "ES256", "nobody"),
        "no kid": forged(payload, ec.generate_private_key(ec.SECP256R1()), "ES256", None),
        "other claims": b".".join([head, other_body, signature]),
        "empty signature": b".".join([head, body, b""]),
        "not a token": b"abc",
        "nothing": b"",
        "not text": b"\xff\xfe.\xff.\xff",
        "endless": b"a" * 100_000,
    }
    for name, attempt in attempts.items():
        with pytest.raises(InvalidTokenError) as caught:
            await authority.verify(attempt)
        assert caught.value.headers["WWW-Authenticate"].startswith("Bearer "), name


def _hmac_forgery(payload: dict[str, Any], secret: bytes, kid: str) -> bytes:
    """By hand: PyJWT itself refuses to sign like that."""

    def encoded(raw: bytes) -> bytes:
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    head = encoded(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode())
    signed = head + b"." + encoded(json.dumps(payload).encode())
    return signed + b"." + encoded(hmac.new(secret, signed, "sha256").digest())


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "somebody"}, {"aud": "other"}, {"aud": None}, {"exp": None}, {"iat": None}, {"jti": None}, {"sub": None},
        {"tenant": None}, {"aud": "staff"}, {"tenant": "not-a-uuid"}, {"permissions": "all"}, {"exp": "later"},
    ],
)  # fmt: skip
async def test_a_claim_that_is_missing_or_wrong_is_refused_though_well_signed(
    authority: TokenAuthority, change: dict[str, Any]
) -> None:
    token = issued(authority)
    payload = {name: value for name, value in {**payload_of(token), **change}.items() if value is not None}
    signer = authority._current()
    with pytest.raises(InvalidTokenError):
        await authority.verify(forged(payload, signer.private_key, "ES256", signer.kid))


async def test_time_is_kept_also_for_tokens_verified_before(authority: TokenAuthority, clock: Clock) -> None:
    token = issued(authority, lifetime_s=60)
    await authority.verify(token)
    clock.now += 59
    assert authority.verified(token) is not None
    clock.now += 1.5
    assert authority.verified(token) is None
    with pytest.raises(InvalidTokenError, match="expired"):
        await authority.verify(token)
    clock.now -= 3600
    with pytest.raises(InvalidTokenError):
        await authority.verify(token)


async def test_no_token_outlives_the_key_that_signed_it(authority: TokenAuthority) -> None:
    longest = TokenSettings().lifetime_s
    claims = await authority.verify(issued(authority, lifetime_s=10 * longest))
    assert claims.exp - claims.iat == longest


async def test_after_rotation_old_tokens_count_and_new_ones_carry_the_new_key(
    authority: TokenAuthority, store: KeysInMemory, local_keys: LocalKeyPort, clock: Clock
) -> None:
    old = issued(authority)
    elsewhere = await started(store, local_keys, clock)
    elsewhere._loaded_at -= 60
    kid = await authority.rotate()
    new = issued(authority)

    assert jwt.get_unverified_header(new)["kid"] == kid
    assert [key["kid"] for key in authority.jwks["keys"]] == [kid, jwt.get_unverified_header(old)["kid"]]
    for token in (old, new):
        assert (await authority.verify(token)).sub == "ann"
        assert (await elsewhere.verify(token)).sub == "ann", "an unknown kid makes a process look again"


async def test_made_up_kids_do_not_become_a_query_each(authority: TokenAuthority, store: KeysInMemory) -> None:
    loads = store.loads
    for number in range(20):
        with pytest.raises(InvalidTokenError):
            await authority.verify(forged({}, ec.generate_private_key(ec.SECP256R1()), "ES256", f"kid{number}"))
    assert store.loads <= loads + 1


async def test_a_withdrawn_key_takes_its_verified_tokens_with_it(
    authority: TokenAuthority, store: KeysInMemory
) -> None:
    token = issued(authority)
    await authority.verify(token)
    store.keys.clear()
    await authority._reload()
    assert authority.verified(token) is None
    with pytest.raises(InvalidTokenError):
        await authority.verify(token)


async def test_the_memory_of_verified_tokens_is_bounded(
    authority: TokenAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "_VERIFIED_TOKENS", 3)
    made = [issued(authority, subject=f"s{number}") for number in range(5)]
    for token in made:
        await authority.verify(token)
    assert [authority.verified(token) is not None for token in made] == [False, False, True, True, True]


async def test_private_keys_are_kept_sealed(store: KeysInMemory, authority: TokenAuthority) -> None:
    (kept,) = store.keys
    assert kept.private_sealed.startswith("local:v1:")
    assert "d" not in kept.public_jwk
    assert authority.jwks["keys"] == [kept.public_jwk]


async def test_roles_become_permissions_in_the_token(authority: TokenAuthority) -> None:
    claims = await authority.verify(tenant_token(authority, uuid4(), Role.OPERATOR, subject="op").encode())
    assert claims.permissions == permissions_of(Role.OPERATOR)
    staff = await authority.verify(staff_token(authority, subject="staff").encode())
    assert (staff.aud, staff.tenant) == (Audience.STAFF, None)
    assert all(permission.startswith("staff:") for permission in staff.permissions)
    with pytest.raises(InvalidInputError, match="no role of a tenant"):
        tenant_token(authority, uuid4(), Role.STAFF, subject="x")


async def test_an_authority_that_was_not_started_issues_nothing(local_keys: LocalKeyPort) -> None:
    with pytest.raises(RuntimeError, match="start"):
        issued(TokenAuthority(KeysInMemory(), local_keys, TokenSettings()))
