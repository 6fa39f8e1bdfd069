"""A tenant that has chosen something."""

from __future__ import annotations

from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from tests.builders.platform import ACTOR


async def settle(runtime: Runtime, slug: str, patch: dict[str, object]) -> TenantContext:
    """Set it, and return the context that shows it."""
    tenant = await runtime.directory.get(slug)
    await runtime.settings_book.patch(tenant.id, patch, if_match="*", actor=ACTOR, staff=True)
    return await runtime.contexts.fresh(tenant.id)
