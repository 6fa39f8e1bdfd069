from __future__ import annotations

import re
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import event

from strata.app import StrataApp
from strata.inventory.products.repository import create_product
from strata.inventory.products.schemas import ProductIn
from strata.runtime import Runtime
from strata.tenancy.context import TenantContext
from strata.tenancy.model import Tier
from tests.builders.http import client_of, token_for
from tests.builders.inventory import move, stocked
from tests.builders.platform import Tenantry
from tests.builders.settings import settle

HTML = {"Accept": "text/html"}


@pytest.fixture
async def warehouse(runtime: Runtime, tenant_on: Tenantry) -> TenantContext:
    context = await tenant_on(Tier.SHARED)
    await stocked(runtime, context, skus=3, on_hand=1234)
    return context


def pages(app: StrataApp, runtime: Runtime, context: TenantContext) -> httpx.AsyncClient:
    client = client_of(app, f"{context.slug}.localhost", token=token_for(runtime.tokens, context))
    client.headers.update(HTML)
    return client


def skus(html: str) -> list[str]:
    return re.findall(r'class="whole" href="/products/[0-9a-f-]+">([^<]+)<', html)


async def test_numbers_and_times_are_written_as_the_tenant_reads_them(
    runtime: Runtime, whole_app: StrataApp, warehouse: TenantContext
) -> None:
    await settle(runtime, warehouse.slug, {"regional": {"time_zone": "Asia/Kolkata", "locale": "de-DE"}})
    async with pages(whole_app, runtime, warehouse) as client:
        html = (await client.get("/stock")).text
        assert "<strong>2.468</strong>" in html
        product = re.search(r"/products/[0-9a-f-]+", html)
        assert product is not None
        page = (await client.get(product.group())).text
        assert "Times in Asia/Kolkata" in page
        line = re.search(r'<time datetime="([^"]+)\+00:00">([^<]+)</time>', page)
        assert line is not None
        minutes = [int(text[-5:-3]) * 60 + int(text[-2:]) for text in (line[1][:16], line[2])]
        assert (minutes[1] - minutes[0]) % (24 * 60) == 5 * 60 + 30


async def test_search_takes_sku_name_barcode_and_text_that_means_something_to_sql(
    runtime: Runtime, whole_app: StrataApp, warehouse: TenantContext
) -> None:
    async with runtime.tenants.transaction(warehouse) as session:
        await create_product(session, ProductIn("100%_X", "Kännchen <blau>", barcode="4006381333931"), sku_limit=None)
    async with pages(whole_app, runtime, warehouse) as client:
        for wanted in ("100%_", "känn", "4006381333931", "%"):
            answer = await client.get("/stock", params={"q": wanted})
            assert skus(answer.text) == ["100%_X"], wanted
            assert "Kännchen &lt;blau&gt;" in answer.text
        assert (await client.get("/stock", params={"q": "\0"})).status_code == 422
        assert (await client.get("/stock", params={"cursor": "x"})).status_code == 400


async def test_a_warehouse_shows_what_lies_or_lay_there(
    runtime: Runtime, whole_app: StrataApp, warehouse: TenantContext
) -> None:
    await stocked(runtime, warehouse, skus=1, bins=1, on_hand=7, prefix="X-")
    async with pages(whole_app, runtime, warehouse) as client:
        there = (await client.get("/stock", params={"warehouse": "X-W"})).text
        assert skus(there) == ["X-S-0"]
        assert '<option value="X-W" selected>' in there
        assert skus((await client.get("/stock", params={"warehouse": "W"})).text) == ["S-0", "S-1", "S-2"]


async def test_the_ledger_shows_batches_and_pages_backwards_in_time(
    runtime: Runtime, whole_app: StrataApp, warehouse: TenantContext
) -> None:
    async with runtime.tenants.transaction(warehouse) as session:
        for _ in range(30):
            await move(session, "pick", ("S-0", "B-0", 1))
    async with pages(whole_app, runtime, warehouse) as client:
        product = re.search(r'/products/[0-9a-f-]+(?=">S-0)', (await client.get("/stock")).text)
        assert product is not None
        first = (await client.get(product.group())).text
        more = re.search(r'hx-get="([^"]+cursor[^"]+)"', first)
        assert more is not None
        rest = (await client.get(more[1].replace("&amp;", "&"), headers={"HX-Request": "true"})).text
        sequences = [int(number) for page in (first, rest) for number in re.findall(r'data-sequence="(\d+)"', page)]
        assert len(sequences) == 32
        assert "<html" not in rest


async def test_a_scanned_barcode_stands_for_its_sku(
    runtime: Runtime, whole_app: StrataApp, warehouse: TenantContext
) -> None:
    async with runtime.tenants.transaction(warehouse) as session:
        await create_product(session, ProductIn("MUG", "Mug", barcode="4006381333931"), sku_limit=None)
        for sku in ("TWIN-1", "TWIN-2"):
            await create_product(session, ProductIn(sku, "Twin", barcode="777"), sku_limit=None)
    async with pages(whole_app, runtime, warehouse) as client:
        line = {"kind": "receive", "bin": "B-0", "quantity": "5", "key": str(uuid4())}
        posted = await client.post("/movements/new", data={**line, "sku": "4006381333931"})
        assert posted.status_code == 303
        assert ">MUG</a>" in (await client.get(posted.headers["location"])).text
        # Two products have it: which is meant cannot be known.
        refused = await client.post("/movements/new", data={**line, "sku": "777", "key": str(uuid4())})
        assert refused.status_code == 422
        assert "There is no product «777»" in refused.text


async def test_a_form_that_was_posted_and_changed_is_a_question_not_a_movement(
    runtime: Runtime, whole_app: StrataApp, warehouse: TenantContext
) -> None:
    line = {"kind": "receive", "sku": "S-1", "bin": "B-0", "quantity": "5", "key": str(uuid4())}
    async with pages(whole_app, runtime, warehouse) as client:
        first, again = [await client.post("/movements/new", data=line) for _ in range(2)]
        assert first.headers["location"] == again.headers["location"]
        changed = await client.post("/movements/new", data={**line, "quantity": "6"})
        assert changed.status_code == 409
        assert "posted before, with other content" in changed.text
        assert 'value="6"' in changed.text
        key = re.search(r'name="key" value="([^"]+)"', changed.text)
        assert key is not None
        meant = await client.post("/movements/new", data={**line, "quantity": "6", "key": key[1]})
        assert meant.status_code == 303
        assert meant.headers["location"] != first.headers["location"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantity": ""}, "How many?"),
        ({"quantity": "0"}, "give a positive quantity"),
        ({"quantity": "1.5"}, "Give a whole number."),
        ({"quantity": "9" * 17}, "Give a whole number."),
        ({"quantity": "9" * 16}, "Give a whole number."),
        ({"sku": "x" * 65}, "That cannot be a SKU"),
        ({"bin": "NOWHERE"}, "There is no bin «NOWHERE»"),
        ({"kind": "transfer"}, "Scan or type the bin it goes to."),
        ({"kind": "transfer", "to_bin": "B-0"}, "A transfer goes to another bin"),
        ({"expires_on": "tomorrow"}, "Give the date as year-month-day."),
        ({"expires_on": "2027-01-31"}, "keeps no expiry dates"),
        ({"reference": "r" * 129}, "At most 128 characters"),
        ({"sku": "", "bin": "", "quantity": ""}, "Scan or type the SKU."),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_wrong_is_said_beside_what_was_typed(
    runtime: Runtime, whole_app: StrataApp, warehouse: TenantContext, change: dict[str, str], said: str
) -> None:
    typed = {"kind": "receive", "sku": "S-1", "bin": "B-0", "quantity": "5", "key": str(uuid4()), **change}
    async with pages(whole_app, runtime, warehouse) as client:
        answer = await client.post("/movements/new", data=typed)
    assert answer.status_code == 422
    assert said in answer.text
    for value in change.values():
        assert f'value="{value}"' in answer.text


async def test_suggestions_are_few_and_escaped(
    runtime: Runtime, whole_app: StrataApp, warehouse: TenantContext
) -> None:
    async with runtime.tenants.transaction(warehouse) as session:
        await create_product(session, ProductIn('"><script>', "<i>x</i>"), sku_limit=None)
    async with pages(whole_app, runtime, warehouse) as client:
        answer = await client.get("/movements/suggestions/products", params={"sku": "scr"})
        assert '<option value="&#34;&gt;&lt;script&gt;">&lt;i&gt;x&lt;/i&gt;</option>' in answer.text
        assert "B-1" in (await client.get("/movements/suggestions/bins", params={"to_bin": "b-1"})).text


@pytest.mark.parametrize(("path", "statements"), [("/stock", 2), ("/movements/new", 0)])
async def test_pages_ask_the_database_a_fixed_number_of_times(
    runtime: Runtime, whole_app: StrataApp, warehouse: TenantContext, path: str, statements: int
) -> None:
    home = await runtime.engines.open(warehouse.placement.cell)
    seen: list[str] = []

    def count(*arguments: object) -> None:
        seen.append(str(arguments[2]))

    async with pages(whole_app, runtime, warehouse) as client:
        await client.get(path)
        event.listen(home.engine.sync_engine, "before_cursor_execute", count)
        try:
            assert (await client.get(path)).status_code == 200
        finally:
            event.remove(home.engine.sync_engine, "before_cursor_execute", count)
    assert len(seen) == statements, seen


async def test_a_count_and_its_reversal(runtime: Runtime, whole_app: StrataApp, warehouse: TenantContext) -> None:
    async with pages(whole_app, runtime, warehouse) as client:
        counted = {"kind": "count", "key": str(uuid4()), "sku": "S-0", "bin": "B-0", "quantity": "1200"}
        shown = (await client.get((await client.post("/movements/new", data=counted)).headers["Location"])).text
        assert "Counted" in shown
        [address] = set(re.findall(r'"(/movements/[0-9a-f-]+)"', shown))
        page = (await client.get(address)).text
        assert "Reverse this movement" in page
        too_long = await client.post(f"{address}/reversal", data={"key": "k", "reason": "x" * 65})
        assert too_long.status_code == 422
        assert "At most 64 characters" in too_long.text
        form = {"key": str(uuid4()), "reason": "counted twice"}
        first = await client.post(f"{address}/reversal", data=form)
        assert first.status_code == 303
        assert (await client.post(f"{address}/reversal", data=form)).headers["Location"] == first.headers["Location"]
        reversal = (await client.get(first.headers["Location"])).text
        assert "Reversed" in reversal
        assert "+34" in reversal
        assert f'href="{address}"' in reversal
        again = await client.post(f"{address}/reversal", data={"key": str(uuid4())})
        assert again.status_code == 409
        assert "has been reversed before" in again.text
        assert first.headers["Location"] in (await client.get(address)).text
        assert "Reverse this movement" not in (await client.get(address)).text
