"""The capability and the entry message."""

from __future__ import annotations

import hashlib
import hmac
from uuid import UUID

import pytest

from strata.tenancy.cell.door import CellSecret, Isolation, entry_message
from strata.tenancy.model import Placement, Tier

TENANT = UUID("0190a0a0-0000-7000-8000-000000000001")
SHARED = Placement(cell="cell-1", tier=Tier.SHARED, schema_name="shared", epoch=7)


def test_padded_blocks_make_the_same_hmac_as_the_library() -> None:
    secret = CellSecret(b"k" * 32)
    inner, outer = (bytes.fromhex(block) for block in secret.padded())
    message = f"enter|{TENANT}|7".encode()
    nested = hashlib.sha256(outer + hashlib.sha256(inner + message).digest()).hexdigest()
    assert nested == hmac.new(b"k" * 32, message, hashlib.sha256).hexdigest() == secret.capability(TENANT, 7)


def test_the_secret_does_not_show_itself() -> None:
    assert "kkkk" not in repr(CellSecret(b"k" * 32))


def test_a_secret_longer_than_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="64"):
        CellSecret(b"k" * 65)


def test_capability_differs_by_tenant_and_epoch() -> None:
    secret = CellSecret(b"k" * 32)
    other = UUID("0190a0a0-0000-7000-8000-000000000002")
    assert len({secret.capability(TENANT, 7), secret.capability(TENANT, 8), secret.capability(other, 7)}) == 3


@pytest.mark.parametrize("isolation", list(Isolation))
@pytest.mark.parametrize(("read_only", "mode"), [(True, "READ ONLY"), (False, "READ WRITE")])
def test_message_begins_as_asked(isolation: Isolation, mode: str, *, read_only: bool) -> None:
    message = entry_message(CellSecret(b"k"), TENANT, SHARED, isolation, read_only=read_only)
    assert message.startswith(f"BEGIN ISOLATION LEVEL {isolation.value} {mode}, NOT DEFERRABLE;")
    assert f"CALL strata.enter_tenant('{TENANT}',7,E'\\\\x{CellSecret(b'k').capability(TENANT, 7)}');" in message


def test_role_and_search_path_are_always_set() -> None:
    shared = entry_message(CellSecret(b"k"), TENANT, SHARED, Isolation.READ_COMMITTED, read_only=False)
    assert shared.endswith(';SET LOCAL search_path="shared",pg_temp;SET LOCAL ROLE none')
    home = Placement(cell="cell-1", tier=Tier.SCHEMA, schema_name=f"t_{TENANT.hex}", epoch=1)
    own = entry_message(CellSecret(b"k"), TENANT, home, Isolation.READ_COMMITTED, read_only=False)
    assert own.endswith(f';SET LOCAL search_path="t_{TENANT.hex}",pg_temp;SET LOCAL ROLE "t_{TENANT.hex}"')
