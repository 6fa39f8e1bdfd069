"""Where in the log a client's last write stands, as a token that the client carries and cannot read.

`<epoch>.<sealed position>`. Unreadable on purpose: how fast the log of a shared cell grows is its neighbours' business.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strata.platform.database.lsn import NOWHERE, Lsn

if TYPE_CHECKING:
    from strata.tenancy.cell.door import CellSecret
    from strata.tenancy.context import TenantContext

UNKNOWN = "unknown"
"""Sent where a commit's outcome is not known; it opens nothing, so the primary is read."""
_PURPOSE = "client position"
_NONCE_BYTES = 12
_LSN_BYTES = 8


def sealed(secret: CellSecret, context: TenantContext, lsn: Lsn) -> str:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    box = AESGCM(secret.derived(_PURPOSE)).encrypt(nonce, lsn.to_bytes(_LSN_BYTES, "big"), _bound_to(context))
    return f"{context.placement.epoch}.{base64.urlsafe_b64encode(nonce + box).decode()}"


def opened(secret: CellSecret, context: TenantContext, token: str) -> Lsn | None:
    """What a standby must have replayed for this client; None: only the primary will do.

    A write of before the last cut-over is in every standby that lets the tenant in at the new epoch: the fence row of
    that epoch was committed behind it. (Who forges an old epoch sees their own tenant some seconds late.)
    """
    epoch, _, box = token.partition(".")
    if not epoch.isdecimal() or int(epoch) > context.placement.epoch:
        return None
    if int(epoch) < context.placement.epoch:
        return NOWHERE
    try:
        raw = base64.b64decode(box, altchars=b"-_", validate=True)
        plain = AESGCM(secret.derived(_PURPOSE)).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _bound_to(context))
    except (binascii.Error, InvalidTag, ValueError):
        return None
    return Lsn(int.from_bytes(plain, "big"))


def _bound_to(context: TenantContext) -> bytes:
    return f"{context.id}|{context.placement.epoch}".encode()
