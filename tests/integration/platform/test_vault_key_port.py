"""The Vault port against the fake Vault, and the fake against what Vault's documentation publishes."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

import httpx
import pytest
from pydantic import SecretStr

from strata.platform.errors import ConfigurationError
from strata.platform.keys.port import KeyUnavailableError, SealBrokenError
from strata.platform.keys.vault import VaultTransitKeyPort
from strata.platform.settings import VaultSettings
from tests.fakes.vault import FakeVault

PLAINTEXT = b"the secret of the cell"


@pytest.fixture
def vault() -> Iterator[FakeVault]:
    with FakeVault().serving() as fake:
        yield fake


def port(fake: FakeVault, **overrides: object) -> VaultTransitKeyPort:
    settings = VaultSettings(address=fake.address, token=SecretStr(fake.token))
    return VaultTransitKeyPort(settings.model_copy(update=overrides))


def test_the_fake_answers_the_published_examples(vault: FakeVault) -> None:
    """Vault's API documentation, «Encrypt data» and «Decrypt data»: sample payload, request and response."""
    headers = {"X-Vault-Token": vault.token}
    with httpx.Client(base_url=vault.address, headers=headers) as client:
        published = {"plaintext": "dGhlIHF1aWNrIGJyb3duIGZveA=="}
        encrypted = client.post("/v1/transit/encrypt/my-key", json=published)
        assert encrypted.status_code == 200
        ciphertext = encrypted.json()["data"]["ciphertext"]
        assert ciphertext.startswith("vault:v1:")

        decrypted = client.post("/v1/transit/decrypt/my-key", json={"ciphertext": ciphertext})
        assert decrypted.json()["data"] == published

        assert client.post("/v1/transit/keys/my-key/rotate").status_code == 204
        rotated = client.post("/v1/transit/encrypt/my-key", json=published)
        assert rotated.json()["data"]["ciphertext"].startswith("vault:v2:")
        assert client.post("/v1/transit/decrypt/my-key", json={"ciphertext": ciphertext}).json()["data"] == published

        refused = client.post("/v1/transit/decrypt/my-key", json={"ciphertext": "vault:v1:abcdefgh"})
        assert (refused.status_code, list(refused.json())) == (400, ["errors"])
        stranger = client.post("/v1/transit/encrypt/my-key", json=published, headers={"X-Vault-Token": "other"})
        assert (stranger.status_code, stranger.json()) == (403, {"errors": ["permission denied"]})


async def test_what_is_sealed_opens_again_for_the_same_purpose_alone(vault: FakeVault) -> None:
    keys = port(vault)
    sealed = await keys.seal(PLAINTEXT, "cell")
    assert sealed.startswith("vault:v1:")
    assert await keys.unseal(sealed, "cell") == PLAINTEXT
    with pytest.raises(SealBrokenError):
        await keys.unseal(sealed, "server")
    with pytest.raises(SealBrokenError):
        await keys.unseal("local:v1:AAAA", "cell")


async def test_the_key_can_be_rotated_without_sealing_again(vault: FakeVault) -> None:
    keys = port(vault)
    old = await keys.seal(PLAINTEXT, "cell")
    vault.answer("/v1/transit/keys/strata/rotate", vault.token, {})
    assert (await keys.seal(PLAINTEXT, "cell")).startswith("vault:v2:")
    assert await keys.unseal(old, "cell") == PLAINTEXT


async def test_failures_say_what_to_mend_and_never_what_was_sealed(vault: FakeVault) -> None:
    keys = port(vault)
    vault.sealed = True
    with pytest.raises(KeyUnavailableError) as unavailable:
        await keys.seal(PLAINTEXT, "cell")
    vault.sealed = False
    stranger = port(vault, token=SecretStr("expired-token"))
    with pytest.raises(ConfigurationError) as refused:
        await stranger.seal(PLAINTEXT, "cell")
    with pytest.raises(ConfigurationError) as misplaced:
        await port(vault, mount="elsewhere").seal(PLAINTEXT, "cell")
    for caught in (unavailable, refused, misplaced):
        said = "".join(traceback.format_exception(caught.value))
        assert vault.address in said
        for secret in ("the secret of the cell", "dGhlIHNlY3JldCBvZiB0aGUgY2VsbA==", "expired-token", vault.token):
            assert secret not in said


async def test_a_vault_that_is_away_is_unavailable() -> None:
    keys = VaultTransitKeyPort(VaultSettings(address="http://127.0.0.1:1", token=SecretStr("t")))
    with pytest.raises(KeyUnavailableError):
        await keys.unseal("vault:v1:AAAA", "cell")
    assert "t" not in repr(keys).removeprefix("<VaultTransitKeyPort http://127.0.0.1:1>")


def test_without_an_address_it_says_which_settings_are_missing() -> None:
    with pytest.raises(ConfigurationError, match="STRATA_KEYS__VAULT__ADDRESS"):
        VaultTransitKeyPort(VaultSettings())
