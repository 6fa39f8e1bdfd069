"""Identifiers: UUIDv7, so that keys are not enumerable and still arrive in the order of the index."""

from __future__ import annotations

from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    return UUID(int=uuid_utils.uuid7().int)
