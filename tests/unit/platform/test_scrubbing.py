from __future__ import annotations

import pytest

from strata.platform.scrubbing import SCRUBBED, scrub, scrub_item, scrub_text

SECRET = "hunter2-p%40ss"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
HEX = "ab12" * 16


@pytest.mark.parametrize(
    "text",
    [
        f"cannot connect to postgresql://postgres:{SECRET}@127.0.0.1:5432/strata",
        f"postgresql+asyncpg://u:{SECRET}@h/db failed",
        f"redis://:{SECRET}@localhost:6379/0",
        f"postgresql://u:odd@{SECRET}@h/db",
        f"host=h user=u password={SECRET} dbname=d",
        f"host=h password = '{SECRET} with spaces' dbname=d",
        f"postgresql://h/db?user=u&password={SECRET}&sslmode=require",
        f"Authorization: Bearer {SECRET}",
        f"authorization: basic {SECRET}",
        f'{{"password": "{SECRET}", "n": 1}}',
        f"{{'access_token': '{SECRET}'}}",
        f"strata.enter('0199', 3, '{SECRET}')",
        f"BEGIN; SELECT strata.enter(uuid('0199'), 3, decode('{SECRET}', 'hex')); SELECT 1",
        f"set_config('strata.seal', '{SECRET}', true)",
        f"[SQL: SELECT 1]\n[parameters: ('a', b'{SECRET}')]\n(Background on this error)",
    ],
)
def test_a_secret_in_text_is_taken_out(text: str) -> None:
    scrubbed = scrub_text(text)

    assert SECRET not in scrubbed
    assert SCRUBBED in scrubbed


@pytest.mark.parametrize(("text", "secret"), [(f"token {JWT} refused", JWT), (f"capability '\\x{HEX}' refused", HEX)])
def test_what_looks_like_a_secret_is_taken_out_wherever_it_stands(text: str, secret: str) -> None:
    assert secret not in scrub_text(text)
    assert scrub_text(text).endswith("refused")


@pytest.mark.parametrize(
    "text",
    [
        "GET http://acme.localhost:8000/stock?sku=A@1",
        "the token expired at 10:00, the password was never asked for",
        "postgresql://postgres@127.0.0.1:5432/strata",
        "tenant 01997b5e-0000-7000-8000-000000000000 entered at epoch 3",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert scrub_text(text) == text


@pytest.mark.parametrize(
    "key",
    ["password", "db_password", "secret", "client-secret", "token", "access_token", "accessToken", "Authorization",
     "Set-Cookie", "dsn", "admin_dsn", "database_url", "capability", "api_key", "apiKey", "email", "owner_email"],
)  # fmt: skip
def test_what_stands_under_a_telling_key_is_taken_out(key: str) -> None:
    assert scrub_item(key, "anything") == SCRUBBED
    assert scrub_item(key, ["a", "b"]) == SCRUBBED


@pytest.mark.parametrize("key", ["token_id", "secret_name", "keyboard", "tenant_id", "appeal", "sku"])
def test_other_keys_keep_their_values(key: str) -> None:
    assert scrub_item(key, "anything") == "anything"


def test_nested_values_are_followed_and_odd_ones_made_text() -> None:
    class Odd:
        def __str__(self) -> str:
            return f"postgresql://u:{SECRET}@h/d"

    value = {"headers": [{"authorization": "x", "accept": "y"}], "body": b"1234", "odd": Odd(), "n": 3, "none": None}

    assert scrub(value) == {
        "headers": [{"authorization": SCRUBBED, "accept": "y"}],
        "body": "[4 bytes]",
        "odd": f"postgresql://u:{SCRUBBED}@h/d",
        "n": 3,
        "none": None,
    }


def test_a_structure_that_contains_itself_ends() -> None:
    loop: dict[str, object] = {}
    loop["self"] = loop

    assert "[too deep]" in str(scrub(loop))
