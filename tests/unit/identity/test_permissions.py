from __future__ import annotations

import pytest
from litestar import Controller, Litestar, Router, asgi, get, post
from litestar.types import Receive, Scope, Send

from strata.identity.permissions import Permission, public, requires, routes_without_permission
from strata.identity.roles import Role, permissions_of


@get("/named", opt=requires(Permission.STOCK_READ))
async def named() -> None:
    pass


@get("/open", opt=public())
async def open_to_all() -> None:
    pass


@post("/forgotten")
async def forgotten() -> None:
    pass


class Forgetful(Controller):
    path = "/forgetful"

    @get("/half", opt=requires("stock:read"))
    async def remembered(self) -> None:
        pass

    @get("/half/other")
    async def not_remembered(self) -> None:
        pass


@asgi("/mounted", copy_scope=True)
async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
    pass


@get("/typo", opt={"permision": Permission.STOCK_READ})
async def typo() -> None:
    pass


@get("/words", opt={"permission": "stock:read", "public": "yes"})
async def words() -> None:
    pass


def test_it_finds_every_route_that_names_nothing() -> None:
    nested = Router("/nested", route_handlers=[Router("/deeper", route_handlers=[forgotten])])
    app = Litestar([named, open_to_all, forgotten, Forgetful, nested, mounted, typo, words], openapi_config=None)
    assert routes_without_permission(app) == [
        "ASGIRoute /mounted",
        "GET /forgetful/half/other",
        "GET /typo",
        "GET /words",
        "POST /forgotten",
        "POST /nested/deeper/forgotten",
    ]


def test_a_whole_router_can_be_public() -> None:
    app = Litestar([Router("/docs", route_handlers=[forgotten], opt=public())], openapi_config=None)
    assert routes_without_permission(app) == []


def test_a_permission_that_does_not_exist_is_refused_when_the_route_is_written() -> None:
    with pytest.raises(ValueError, match="stock:raed"):
        requires("stock:raed")


def test_no_role_of_a_tenant_reaches_staff_and_staff_no_tenants_data() -> None:
    for role in Role:
        kinds = {permission.for_staff for permission in permissions_of(role)}
        assert kinds == {role is Role.STAFF}, role


def test_the_administrator_may_do_all_that_any_other_role_may() -> None:
    everything = set(permissions_of(Role.ADMINISTRATOR))
    for role in set(Role) - {Role.STAFF}:
        assert set(permissions_of(role)) <= everything
    assert Permission.MOVEMENTS_WRITE not in permissions_of(Role.VIEWER)
