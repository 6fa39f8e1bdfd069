"""The three layers (ORM, row-level security with the seal, roles) switched off one at a time: the others hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from uuid import UUID, uuid4

import msgspec
import pytest
from sqlalchemy import delete, exists, func, insert, literal, select, text, union_all, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import aliased
from sqlalchemy.orm.exc import StaleDataError

from strata.inventory.locations.models import Bin, Zone
from strata.inventory.products.models import Product
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.errors import CrossTenantWriteError
from strata.tenancy.model import Tier
from strata.tenancy.scoping import TENANT_PARAMETER, TenantModel
from strata.tenancy.session import TenantSession
from tests.builders.attacks import ATTACKS, OWN_TROUBLE, aims, reached
from tests.builders.intruder import FORBIDDEN, NOT_ENTERED, attempt, inside
from tests.builders.platform import SECOND_CELL, Tenantry, admin_of
from tests.builders.rows import Row, fill, fingerprint, tables_of
from tests.builders.scenes import Meeting, Scene, new_scene


class Pair(msgspec.Struct, frozen=True):
    """Two shared tenants of a cell where a layer is off."""

    runtime: Runtime
    mine: TenantContext
    theirs: TenantContext
    rows: dict[str, Row]

    @property
    def their_product(self) -> UUID:
        return UUID(self.rows["product"]["id"])


# Without the ORM: what goes past it


async def test_core_statements_meet_the_wall(runtime: Runtime, pair: Pair) -> None:
    """Core knows no criterion; row-level security alone answers."""
    table = TenantModel.metadata.tables["product"]
    async with runtime.tenants.transaction(pair.mine) as session:
        assert (await session.execute(select(table).where(table.c.tenant_id == pair.theirs.id))).all() == []
        assert set(await session.scalars(select(table.c.tenant_id))) == {pair.mine.id}
        changed = await session.execute(update(table).values(name="x").returning(table.c.tenant_id))
        assert set(changed.scalars()) == {pair.mine.id}
        with pytest.raises(DBAPIError, match="row-level security"):
            async with session.begin_nested():
                await session.execute(insert(table).values(tenant_id=pair.theirs.id, sku="x", name="x"))


# Without row-level security: what goes through the ORM


def _new_sku() -> str:
    return f"planted-{uuid4().hex}"


Programme = Callable[[TenantSession, Pair], Awaitable[object]]


async def _entities(session: TenantSession, _pair: Pair) -> object:
    return [row.tenant_id for row in await session.scalars(select(Product))]


async def _columns(session: TenantSession, _pair: Pair) -> object:
    return list(await session.scalars(select(Product.tenant_id)))


async def _aliased(session: TenantSession, _pair: Pair) -> object:
    other = aliased(Product)
    return list(await session.scalars(select(other.tenant_id)))


async def _joined(session: TenantSession, _pair: Pair) -> object:
    other = aliased(Product)
    return list(await session.scalars(select(other.tenant_id).join_from(Bin, other, literal(value=True))))


async def _outer_joined(session: TenantSession, _pair: Pair) -> object:
    found = await session.scalars(select(Zone.tenant_id).outerjoin_from(Bin, Zone, literal(value=True)))
    return list(found)


async def _sub_query(session: TenantSession, _pair: Pair) -> object:
    inner = select(Product.tenant_id).subquery()
    return list(await session.scalars(select(inner.c.tenant_id)))


async def _cte(session: TenantSession, _pair: Pair) -> object:
    inner = select(Product.tenant_id).cte()
    return list(await session.scalars(select(inner.c.tenant_id)))


async def _counted_sub_query(session: TenantSession, pair: Pair) -> object:
    inner = select(Product).where(Product.id == pair.their_product).subquery()
    count = await session.scalar(select(func.count()).select_from(inner))
    return [pair.theirs.id] * int(count or 0)


async def _exists(session: TenantSession, pair: Pair) -> object:
    found = await session.scalar(select(exists().where(Product.id == pair.their_product)))
    return [pair.theirs.id] if found else []


async def _scalar_sub_query(session: TenantSession, pair: Pair) -> object:
    inner = select(Product.tenant_id).where(Product.id == pair.their_product).scalar_subquery()
    return [each for each in await session.scalars(select(inner)) if each is not None]


async def _in_sub_query(session: TenantSession, pair: Pair) -> object:
    inner = select(Product.id).where(Product.id == pair.their_product)
    count = await session.scalar(select(func.count()).where(literal(pair.their_product).in_(inner)))
    return [pair.theirs.id] * int(count or 0)


async def _union(session: TenantSession, _pair: Pair) -> object:
    return list(await session.scalars(union_all(select(Product.tenant_id), select(Product.tenant_id))))


async def _get(session: TenantSession, pair: Pair) -> object:
    found = await session.get(Product, (pair.theirs.id, pair.their_product))
    return [found.tenant_id] if found is not None else []


async def _streamed(session: TenantSession, _pair: Pair) -> object:
    return [row.tenant_id async for row in await session.stream_scalars(select(Product))]


async def _update(session: TenantSession, pair: Pair) -> object:
    changed = await session.execute(update(Product).values(name="mine").returning(Product.tenant_id))
    return list(changed.scalars())


async def _update_theirs(session: TenantSession, pair: Pair) -> object:
    changed = await session.execute(
        update(Product).where(Product.id == pair.their_product).values(name="mine").returning(Product.tenant_id)
    )
    return list(changed.scalars())


async def _update_value_from_theirs(session: TenantSession, pair: Pair) -> object:
    source = select(Product.name).where(Product.id == pair.their_product).scalar_subquery()
    changed = await session.execute(
        update(Product).values(name=func.coalesce(source, "nothing")).returning(Product.name)
    )
    return [pair.theirs.id] if set(changed.scalars()) != {"nothing"} else []


async def _exists_of_a_select(session: TenantSession, pair: Pair) -> object:
    found = await session.scalar(select(exists(select(Product.id).where(Product.id == pair.their_product))))
    return [pair.theirs.id] if found else []


async def _refresh(session: TenantSession, pair: Pair) -> object:
    row = await _their_entity(pair)
    session.add(row)
    await session.refresh(row)
    return [row.tenant_id]


async def _parameter(session: TenantSession, pair: Pair) -> object:
    """The criterion's own parameter, given by the caller."""
    return list(await session.scalars(select(Product.tenant_id), {TENANT_PARAMETER: pair.theirs.id}))


async def _legacy_query(session: TenantSession, _pair: Pair) -> object:
    return await session.run_sync(lambda sync: [row.tenant_id for row in sync.query(Product).all()])


async def _update_by_key(session: TenantSession, pair: Pair) -> object:
    with suppress(StaleDataError):
        await session.execute(
            update(Product), [{"tenant_id": pair.theirs.id, "id": pair.their_product, "name": "mine"}]
        )
    return []


async def _give_away(session: TenantSession, pair: Pair) -> object:
    await session.execute(update(Product).values(tenant_id=pair.theirs.id))
    return [pair.theirs.id]


async def _give_away_an_entity(session: TenantSession, pair: Pair) -> object:
    row = (await session.scalars(select(Product))).first()
    assert row is not None
    row.tenant_id = pair.theirs.id
    await session.flush()
    return [row.tenant_id]


async def _delete(session: TenantSession, _pair: Pair) -> object:
    return list(
        (await session.execute(delete(Product).where(Product.sku == "gone").returning(Product.tenant_id))).scalars()
    )


async def _delete_theirs(session: TenantSession, pair: Pair) -> object:
    gone = await session.execute(delete(Bin).where(Bin.id == UUID(pair.rows["bin"]["id"])).returning(Bin.tenant_id))
    return list(gone.scalars())


async def _add(session: TenantSession, pair: Pair) -> object:
    row = Product(tenant_id=pair.theirs.id, sku=_new_sku(), name="x")
    session.add(row)
    await session.flush()
    return [row.tenant_id]


async def _add_detached(session: TenantSession, pair: Pair) -> object:
    """An entity that another tenant's session loaded, changed in this one."""
    row = await _their_entity(pair)
    session.add(row)
    row.name = "mine"
    await session.flush()
    return [row.tenant_id]


async def _delete_detached(session: TenantSession, pair: Pair) -> object:
    row = await _their_entity(pair)
    await session.delete(row)
    await session.flush()
    return [row.tenant_id]


async def _merge(session: TenantSession, pair: Pair) -> object:
    row = await _their_entity(pair)
    row.name = "mine"
    merged = await session.merge(row)
    await session.flush()
    return [merged.tenant_id]


async def _insert(session: TenantSession, pair: Pair) -> object:
    made = await session.execute(
        insert(Product).values(tenant_id=pair.theirs.id, sku=_new_sku(), name="x").returning(Product.tenant_id)
    )
    return list(made.scalars())


async def _insert_by_column(session: TenantSession, pair: Pair) -> object:
    values = {Product.tenant_id: pair.theirs.id, Product.sku: _new_sku(), Product.name: "x"}
    return list((await session.execute(insert(Product).values(values).returning(Product.tenant_id))).scalars())


async def _insert_many(session: TenantSession, pair: Pair) -> object:
    rows = [{"tenant_id": pair.theirs.id, "sku": _new_sku(), "name": "x"} for _ in range(2)]
    return list((await session.execute(insert(Product).returning(Product.tenant_id), rows)).scalars())


async def _insert_values_list(session: TenantSession, pair: Pair) -> object:
    rows = [{"tenant_id": pair.theirs.id, "sku": _new_sku(), "name": "x"} for _ in range(2)]
    return list((await session.execute(insert(Product).values(rows).returning(Product.tenant_id))).scalars())


async def _insert_from_select(session: TenantSession, pair: Pair) -> object:
    source = select(literal(pair.theirs.id), literal(_new_sku()), literal("x"))
    statement = insert(Product).from_select(["tenant_id", "sku", "name"], source).returning(Product.tenant_id)
    return list((await session.execute(statement)).scalars())


async def _copy_from_select(session: TenantSession, pair: Pair) -> object:
    """Own rows made out of theirs."""
    source = select(Product.sku + "-copy", Product.name).where(Product.id == pair.their_product)
    made = await session.execute(insert(Product).from_select(["sku", "name"], source).returning(Product.id))
    return [pair.theirs.id] * len(made.scalars().all())


async def _value_from_theirs(session: TenantSession, pair: Pair) -> object:
    """A value of an own row taken from theirs."""
    source = select(Product.name).where(Product.id == pair.their_product).scalar_subquery()
    made = await session.execute(
        insert(Product).values(sku=_new_sku(), name=func.coalesce(source, "nothing")).returning(Product.name)
    )
    return [pair.theirs.id] if made.scalar_one() != "nothing" else []


async def _upsert(session: TenantSession, pair: Pair) -> object:
    statement = upsert(Product).values(tenant_id=pair.theirs.id, id=pair.their_product, sku=_new_sku(), name="mine")
    statement = statement.on_conflict_do_update(index_elements=["tenant_id", "id"], set_={"name": "mine"})
    return list((await session.execute(statement.returning(Product.tenant_id))).scalars())


async def _upsert_giving_away(session: TenantSession, pair: Pair) -> object:
    own = (await session.scalars(select(Product))).first()
    assert own is not None
    statement = upsert(Product).values(id=own.id, sku=_new_sku(), name="mine")
    statement = statement.on_conflict_do_update(index_elements=["tenant_id", "id"], set_={"tenant_id": pair.theirs.id})
    return list((await session.execute(statement.returning(Product.tenant_id))).scalars())


async def _bulk_mappings(session: TenantSession, pair: Pair) -> object:
    rows = [{"tenant_id": pair.theirs.id, "id": uuid4(), "sku": _new_sku(), "name": "x"}]
    await session.run_sync(lambda sync: sync.bulk_insert_mappings(Product.__mapper__, rows))
    return [pair.theirs.id]


async def _bulk_objects(session: TenantSession, pair: Pair) -> object:
    row = Product(tenant_id=pair.theirs.id, sku=_new_sku(), name="x")
    await session.run_sync(lambda sync: sync.bulk_save_objects([row]))
    return [pair.theirs.id]


async def _bulk_update(session: TenantSession, pair: Pair) -> object:
    rows = [{"tenant_id": pair.theirs.id, "id": pair.their_product, "name": "mine"}]
    await session.run_sync(lambda sync: sync.bulk_update_mappings(Product.__mapper__, rows))
    return [pair.theirs.id]


async def _their_entity(pair: Pair) -> Product:
    async with pair.runtime.tenants.reading(pair.theirs) as session:
        return (await session.scalars(select(Product).where(Product.id == pair.their_product))).one()


PROGRAMMES: list[Programme] = [
    _entities, _columns, _aliased, _joined, _outer_joined, _sub_query, _cte, _counted_sub_query, _exists,
    _scalar_sub_query, _in_sub_query, _union, _get, _streamed, _update, _update_theirs, _update_by_key, _give_away,
    _give_away_an_entity, _delete, _delete_theirs, _add, _add_detached, _delete_detached, _insert,
    _insert_by_column, _insert_many, _insert_values_list, _insert_from_select, _copy_from_select, _value_from_theirs,
    _upsert_giving_away, _bulk_mappings, _bulk_objects, _bulk_update, _update_value_from_theirs, _exists_of_a_select,
    _parameter, _legacy_query, _refresh,
    # Last: they give the attacker a row of its own with the id of the victim's.
    _merge, _upsert,
]  # fmt: skip


@pytest.fixture(scope="module")
async def pair(runtime: Runtime, tenant_on: Tenantry) -> Pair:
    mine, theirs = [await tenant_on(Tier.SHARED, cell=SECOND_CELL) for _ in range(2)]
    async with admin_of(runtime, SECOND_CELL) as admin:
        tables = await tables_of(admin, "shared")
        await fill(admin, tables, mine.id)
        return Pair(runtime, mine, theirs, await fill(admin, tables, theirs.id))


@pytest.fixture(scope="class")
async def without_policies(runtime: Runtime, pair: Pair) -> AsyncIterator[None]:
    async with admin_of(runtime, SECOND_CELL) as admin:
        tables = [table.qualified for table in await tables_of(admin, "shared")]
        await admin.execute(";".join(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY" for table in tables))
        try:
            yield
        finally:
            await admin.execute(";".join(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY" for table in tables))


REFUSED = {
    _give_away, _insert_from_select, _give_away_an_entity, _add_detached, _delete_detached, _insert_values_list,
    _upsert_giving_away, _bulk_mappings, _bulk_objects, _bulk_update, _refresh,
}  # fmt: skip


@pytest.mark.usefixtures("without_policies")
class TestWithoutPolicies:
    @pytest.mark.parametrize("programme", PROGRAMMES, ids=lambda each: each.__name__.strip("_"))
    async def test_the_orm_alone_keeps_tenants_apart(self, runtime: Runtime, pair: Pair, programme: Programme) -> None:
        async with admin_of(runtime, SECOND_CELL) as admin:
            before = await fingerprint(admin, "shared", pair.theirs.id)
            try:
                async with runtime.tenants.transaction(pair.mine) as session:
                    found = await programme(session, pair)
                    assert isinstance(found, list)
                    assert set(found) <= {pair.mine.id}
            except CrossTenantWriteError:
                assert programme in REFUSED
            else:
                assert programme not in REFUSED
            assert await fingerprint(admin, "shared", pair.theirs.id) == before

    async def test_plain_sql_does_see_everything(self, runtime: Runtime, pair: Pair) -> None:
        """The control for the test above."""
        async with runtime.tenants.transaction(pair.mine) as session:
            found = set(await session.scalars(text("SELECT tenant_id FROM product")))
        assert {pair.mine.id, pair.theirs.id} <= found


# Without roles: wide grants, inherited memberships, even ownership


@pytest.fixture(scope="module")
async def wide_open(runtime: Runtime, tenant_on: Tenantry) -> AsyncIterator[Scene]:
    """The application may do everything with every tenant's tables, and inherits every tenant's role."""
    scene = await new_scene(runtime, tenant_on, Meeting.SHARED_SCHEMA)
    assert scene.victim is not None
    role, victim = f"{runtime.settings.role_prefix}_app", scene.victim.placement.schema_name
    async with admin_of(runtime, scene.attacker.placement.cell) as admin:
        await admin.execute(f"GRANT {victim} TO {role} WITH INHERIT TRUE, SET TRUE")
        await admin.execute(f"GRANT USAGE ON SCHEMA {victim} TO {role}")
        await admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {victim}, shared TO {role}")
        for schema in (victim, "shared"):
            for table in await tables_of(admin, schema):
                await admin.execute(f"ALTER TABLE {table.qualified} OWNER TO {role}")
        try:
            yield scene
        finally:
            for schema in (victim, "shared"):
                for table in await tables_of(admin, schema):
                    await admin.execute(f"ALTER TABLE {table.qualified} OWNER TO CURRENT_USER")
            await admin.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA {victim}, shared FROM {role}")
            await admin.execute(f"REVOKE ALL ON SCHEMA {victim} FROM {role}")
            await admin.execute(f"GRANT {victim} TO {role} WITH INHERIT FALSE, SET TRUE")
            await admin.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shared TO {role}")
            await admin.execute("REVOKE UPDATE, DELETE ON shared.movement, shared.stock_ledger FROM " + role)
            for partition in (p for t in await tables_of(admin, "shared") for p in t.partitions):
                await admin.execute(f"REVOKE ALL ON {partition} FROM {role}")


@pytest.mark.parametrize("attack", ATTACKS)
async def test_the_seal_alone_keeps_tenants_apart(runtime: Runtime, wide_open: Scene, attack: str) -> None:
    async with inside(runtime, wide_open.attacker) as connection:
        for aim in aims(wide_open):
            outcome = await attempt(connection, *ATTACKS[attack](aim))
            assert not reached(outcome, wide_open), aim.theirs
            assert outcome.sqlstate in {FORBIDDEN, NOT_ENTERED, *OWN_TROUBLE.get(attack, ())}, (aim.theirs, outcome)
    assert await wide_open.fingerprint(runtime) == wide_open.untouched


async def test_partitions_hold_without_grants_too(runtime: Runtime, wide_open: Scene) -> None:
    """Forced row-level security without a policy shows nobody anything, the owner included."""
    async with inside(runtime, wide_open.attacker) as connection:
        for partition in (p for table in wide_open.own.values() for p in table.partitions):
            outcome = await attempt(connection, f"SELECT tenant_id FROM {partition}")
            assert outcome.sqlstate in {None, FORBIDDEN}
            assert outcome.rows == ()
