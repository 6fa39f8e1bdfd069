"""A tenant's audit is chained by the database, and a chain that was tampered with is told from one that was not."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import select, text

from strata.platform.errors import BadRequestError
from strata.runtime import Runtime
from strata.tenancy.audit import record
from strata.tenancy.audit.chain import Anchor, Flaw, Verification
from strata.tenancy.audit.models import AuditEntryRow
from strata.tenancy.audit.origin import Origin, acting_for
from strata.tenancy.audit.reading import every_entry, head, verify
from strata.tenancy.catalog import audit_chain
from strata.tenancy.context import TenantContext
from strata.tenancy.model import TenantStatus, Tier
from tests.builders.platform import Tenantry, admin_of

EVERYTHING = {
    "text": '«ü» "\\\n\t\x01 \u2028 😀',
    "whole": 7,
    "parts": [1.5, -0.25, None, True, {"b": 1, "aa": 2, "A": {}}],
}


async def wrote(runtime: Runtime, context: TenantContext, *subjects: str) -> None:
    for subject in subjects:
        async with runtime.tenants.transaction(context) as session:
            record(session, "product.change", subject, **EVERYTHING)


async def checked(runtime: Runtime, context: TenantContext, *anchors: Anchor) -> Verification:
    return await verify(runtime.tenants, context, list(anchors))


async def entries(runtime: Runtime, context: TenantContext) -> list[AuditEntryRow]:
    async with runtime.tenants.reading(context) as session:
        return list(await session.scalars(select(AuditEntryRow).order_by(AuditEntryRow.sequence)))


REPLACED = """
    WITH gone AS (DELETE FROM audit_entry WHERE tenant_id = $1 AND sequence = 2 RETURNING *)
    INSERT INTO audit_entry SELECT gone.tenant_id, strata.uuidv7(), 2, gone.at, 'forger', action, subject, source,
           authentication, request, detail, previous, sha256('forged') FROM gone
"""


@asynccontextmanager
async def tampering(runtime: Runtime, context: TenantContext) -> AsyncIterator[asyncpg.Connection]:
    """The administrator, with every trigger out of the way."""
    async with admin_of(runtime, context.placement.cell) as admin, admin.transaction():
        await admin.execute("SET LOCAL session_replication_role = replica")
        await admin.execute(f'SET LOCAL search_path = "{context.placement.schema_name}"')
        yield admin


@pytest.mark.parametrize("tier", Tier)
async def test_entries_are_chained_on_every_tier(runtime: Runtime, tenant_on: Tenantry, tier: Tier) -> None:
    context = await tenant_on(tier)
    await wrote(runtime, context, "A", "B", "C")
    found = await checked(runtime, context)
    assert (found.entries, found.sound) == (3, True)
    assert [entry.sequence for entry in await entries(runtime, context)] == [1, 2, 3]


async def test_an_exported_line_can_be_checked_by_anybody(runtime: Runtime, tenant_on: Tenantry) -> None:
    """With Python's own JSON, as docs/operating.md says."""
    context = await tenant_on(Tier.SHARED)
    await wrote(runtime, context, "A", "B")
    lines = [entry.line() async for entry in every_entry(runtime.tenants, context)]
    digest = bytes(32)
    for line in lines:
        document = json.loads(line)
        claimed, previous = document.pop("digest"), document.pop("previous")
        assert bytes.fromhex(previous) == digest
        spelt = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(digest + spelt.encode()).digest()
        assert digest.hex() == claimed
        assert document["detail"] == EVERYTHING
    assert len(lines) == 2


async def test_who_and_from_where_is_written_down(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SCHEMA)
    origin = Origin("anna", "192.0.2.7", "token 1", "request-1")
    with acting_for(lambda: origin):
        async with runtime.tenants.transaction(context) as session:
            record(session, "product.create", "A\0B", note="\0")
    (entry,) = await entries(runtime, context)
    assert (entry.actor, entry.source, entry.authentication, entry.request) == (
        "anna",
        "192.0.2.7",
        "token 1",
        "request-1",
    )
    assert (entry.subject, entry.detail) == ("A\N{REPLACEMENT CHARACTER}B", {"note": "\N{REPLACEMENT CHARACTER}"})


async def test_it_stands_if_and_only_if_the_transaction_does(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    with pytest.raises(BadRequestError):
        async with runtime.tenants.transaction(context) as session:
            record(session, "product.change", "undone")
            raise BadRequestError("no")
    async with runtime.tenants.transaction(context) as session:
        await session.execute(text("SELECT 1"))
        record(session, "product.change", "before")
        with pytest.raises(BadRequestError):
            async with session.begin_nested():
                record(session, "product.change", "in a savepoint that is undone")
                raise BadRequestError("no")
        async with session.begin_nested():
            record(session, "product.change", "in a savepoint that is kept")
    assert [entry.subject for entry in await entries(runtime, context)] == ["before", "in a savepoint that is kept"]
    async with runtime.tenants.transaction(context) as session:
        _left_open = await session.begin_nested().start()
        record(session, "product.change", "in a savepoint that is left open")
    assert [entry.sequence for entry in await entries(runtime, context)] == [1, 2, 3]
    assert (await checked(runtime, context)).sound


async def test_an_entry_that_cannot_be_written_undoes_the_rest(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    with pytest.raises(Exception, match="ck_audit_entry_action_size"):
        async with runtime.tenants.transaction(context) as session:
            await session.execute(text("INSERT INTO quota (name, used) VALUES ('x', 1)"))
            record(session, "x" * 65, "A")
    async with runtime.tenants.transaction(context) as session:
        assert await session.scalar(text("SELECT count(*) FROM quota")) == 0
        record(session, "product.change", "the connection is as good as before")
    assert len(await entries(runtime, context)) == 1


async def test_writers_at_once_leave_no_gap_and_no_fork(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)

    async def write(number: int) -> None:
        async with runtime.tenants.transaction(context) as session:
            await session.execute(text("SELECT 1"))
            record(session, "product.change", f"{number}a")
            record(session, "product.change", f"{number}b")

    await asyncio.gather(*(write(number) for number in range(20)))
    found = await checked(runtime, context)
    assert (found.entries, found.findings) == (40, [])
    subjects = [entry.subject for entry in await entries(runtime, context)]
    assert all(subjects[n][:-1] == subjects[n + 1][:-1] for n in range(0, 40, 2))


@pytest.mark.parametrize(
    ("statement", "flaw", "sequence"),
    [
        ("UPDATE audit_entry SET actor = 'somebody else' WHERE tenant_id = $1 AND sequence = 2", Flaw.CHANGED, 2),
        (
            "UPDATE audit_entry SET detail = detail || '{\"whole\": 8}' WHERE tenant_id = $1 AND sequence = 3",
            Flaw.CHANGED,
            3,
        ),
        ("UPDATE audit_entry SET at = at + interval '1 us' WHERE tenant_id = $1 AND sequence = 1", Flaw.CHANGED, 1),
        ("DELETE FROM audit_entry WHERE tenant_id = $1 AND sequence = 2", Flaw.MISSING, 2),
        ("DELETE FROM audit_entry WHERE tenant_id = $1 AND sequence <= 2", Flaw.MISSING, 1),
        ("DELETE FROM audit_entry WHERE tenant_id = $1 AND sequence >= 3", Flaw.MISSING, 3),
        ("DELETE FROM audit_entry WHERE tenant_id = $1", Flaw.MISSING, 1),
        (
            REPLACED,
            Flaw.CHANGED,
            2,
        ),
    ],
)
async def test_tampering_is_named(
    runtime: Runtime, tenant_on: Tenantry, statement: str, flaw: Flaw, sequence: int
) -> None:
    context = await tenant_on(Tier.SHARED)
    await wrote(runtime, context, "A", "B", "C", "D")
    async with runtime.tenants.reading(context) as session:
        anchor = await head(session)
    assert anchor is not None
    assert (await checked(runtime, context, anchor)).sound
    async with tampering(runtime, context) as admin:
        await admin.execute(statement, context.id)
    found = await checked(runtime, context, anchor)
    assert (flaw, sequence) in {(finding.flaw, finding.sequence) for finding in found.findings}


async def test_a_forger_who_chains_anew_is_given_away_by_the_anchor(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SCHEMA)
    await wrote(runtime, context, "A", "B")
    async with runtime.tenants.reading(context) as session:
        anchor = await head(session)
    assert anchor is not None
    await audit_chain.anchor(runtime.catalog_engine, context.id, anchor)
    async with tampering(runtime, context) as admin:
        await admin.execute("DELETE FROM audit_entry")
    await wrote(runtime, context, "A", "B")
    assert (await checked(runtime, context)).sound
    anchors = await audit_chain.anchors_of(runtime.catalog_engine, context.id)
    findings = (await checked(runtime, context, *anchors)).findings
    assert [(each.flaw, each.sequence) for each in findings] == [(Flaw.CHANGED, 2)]


@pytest.mark.parametrize("statement", ["UPDATE audit_entry SET actor = 'x'", "DELETE FROM audit_entry"])
async def test_the_trigger_refuses_whoever_was_granted_too_much(
    runtime: Runtime, tenant_on: Tenantry, statement: str
) -> None:
    context = await tenant_on(Tier.DEDICATED)
    await wrote(runtime, context, "A")
    async with admin_of(runtime, context.placement.cell) as admin:
        await admin.execute("SET search_path = main")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="only ever added"):
            await admin.execute(statement)


async def test_the_application_cannot_choose_number_time_and_digest(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    await wrote(runtime, context, "A")
    async with runtime.tenants.transaction(context) as session:
        await session.execute(
            text(
                "INSERT INTO audit_entry (sequence, at, actor, action, subject, previous, digest)"
                " VALUES (77, '2020-01-01', 'a', 'b.c', 'd', '', '')"
            )
        )
    assert (await checked(runtime, context)).sound
    assert (await entries(runtime, context))[1].at.year > 2020


async def test_the_catalogs_own_audit_is_chained_too(runtime: Runtime, tenant_on: Tenantry) -> None:
    context = await tenant_on(Tier.SHARED)
    await asyncio.gather(
        *(runtime.directory.set_status(context.slug, TenantStatus.READ_ONLY, f"{n}", "tests") for n in range(5))
    )
    found = await audit_chain.verify(runtime.catalog_engine)
    assert found.findings == []
    assert found.entries >= 6
    async with _tampered(runtime, context):
        findings = (await audit_chain.verify(runtime.catalog_engine)).findings
        assert {finding.flaw for finding in findings} == {Flaw.CHANGED}
        assert len(findings) == 6
    assert (await audit_chain.verify(runtime.catalog_engine)).sound


@asynccontextmanager
async def _tampered(runtime: Runtime, context: TenantContext) -> AsyncIterator[None]:
    """Other tests share the catalog: what is done to it is undone."""
    for statement in ("UPDATE audit SET actor = actor || '!' WHERE tenant_id = :id", None):
        async with runtime.catalog_engine.begin() as connection:
            await connection.execute(text("SET LOCAL session_replication_role = replica"))
            undo = "UPDATE audit SET actor = rtrim(actor, '!') WHERE tenant_id = :id"
            await connection.execute(text(statement or undo), {"id": context.id})
        if statement is not None:
            yield
