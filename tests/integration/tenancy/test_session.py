from __future__ import annotations

import pytest
from sqlalchemy import text

from strata.runtime import Runtime
from strata.tenancy.model import Tier
from tests.builders.platform import Tenantry


@pytest.mark.parametrize("tier", Tier)
async def test_smoke(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    context = await tenant_on(tier)
    async with runtime.tenants.transaction(context) as session:
        await session.execute(text("INSERT INTO product (sku, name) VALUES ('a', 'b')"))
    async with runtime.tenants.reading(context) as session:
        assert await session.scalar(text("SELECT count(*) FROM product")) == 1
