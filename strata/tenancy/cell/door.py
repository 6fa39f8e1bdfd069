"""How this process presents itself at a cell: the capability, and the one message that opens a tenant transaction."""

from __future__ import annotations

import hmac
from enum import StrEnum
from functools import lru_cache
from uuid import UUID

from strata.platform.database.names import quoted
from strata.tenancy.model import Placement, Tier

_BLOCK_BYTES = 64
_MESSAGES_KEPT = 8192


class Isolation(StrEnum):
    READ_COMMITTED = "READ COMMITTED"
    REPEATABLE_READ = "REPEATABLE READ"
    SERIALIZABLE = "SERIALIZABLE"


class Refusal(StrEnum):
    """SQLSTATEs with which `strata.enter_tenant` and `strata.tenant` turn a caller away (migrations/cell/sql/0006_seal.sql)."""

    STALE_EPOCH = "SM001"
    FENCED = "SM002"
    TIMELINE = "SM003"
    CAPABILITY = "SM004"
    NOT_ENTERED = "SM005"
    SERIALIZATION = "40001"
    """PostgreSQL's own: above READ COMMITTED the snapshot is older than the tenant's lock."""


class CellSecret:
    """The key that cell and application share; never shown, and kept nowhere else in clear."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK_BYTES:
            message = f"a cell secret has at most {_BLOCK_BYTES} bytes"
            raise ValueError(message)
        self._key = key

    def __repr__(self) -> str:
        return "CellSecret(***)"

    def padded(self) -> tuple[str, str]:
        """The inner and outer key blocks of RFC 2104, in hexadecimal: what the cell stores."""
        block = self._key.ljust(_BLOCK_BYTES, b"\0")
        return bytes(b ^ 0x36 for b in block).hex(), bytes(b ^ 0x5C for b in block).hex()

    def capability(self, tenant_id: UUID | str, epoch: int) -> str:
        """HMAC-SHA256 over the tenant's id and epoch, in hexadecimal."""
        return hmac.digest(self._key, f"enter|{tenant_id}|{epoch}".encode(), "sha256").hex()

    def derived(self, purpose: str) -> bytes:
        """A key of 32 bytes for something else than entering; nothing of this one can be learnt from it."""
        return hmac.digest(self._key, f"derive|{purpose}".encode(), "sha256")


@lru_cache(_MESSAGES_KEPT)
def entry_message(
    secret: CellSecret, tenant_id: UUID, placement: Placement, isolation: Isolation, *, read_only: bool
) -> str:
    """BEGIN, enter, search_path and role as one simple-protocol message: entering costs no round trip of its own.

    The simple protocol takes no parameters; what is put in is a UUID, an integer, hexadecimal digits and a quoted name.
    search_path and role are set every time, also to their defaults, after RESET ALL, CLOSE ALL and UNLISTEN: whatever a
    statement left behind on the pooled connection ends here (all three together cost nothing measurable). `pg_temp`
    stands last, or it would be searched first. E'' reads the same whatever standard_conforming_strings was left at.
    CALL and SET are utility statements: a SELECT of the same would be planned anew for each transaction.
    Kept for the tenants that come often: what it holds can be worked out anew at any time from the key beside it.
    """
    mode = "READ ONLY" if read_only else "READ WRITE"
    tenant = str(tenant_id)
    capability = secret.capability(tenant, placement.epoch)
    schema = quoted(placement.schema_name)
    role = schema if placement.tier is Tier.SCHEMA else "none"
    return (
        f"BEGIN ISOLATION LEVEL {isolation.value} {mode}, NOT DEFERRABLE;RESET ALL;CLOSE ALL;UNLISTEN *;"
        f"CALL strata.enter_tenant('{tenant}',{placement.epoch:d},E'\\\\x{capability}');"
        f"SET LOCAL search_path={schema},pg_temp;SET LOCAL ROLE {role}"
    )
