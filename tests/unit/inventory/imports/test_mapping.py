from __future__ import annotations

from pathlib import Path

import pytest

from strata.inventory.imports.errors import MappingRefusedError, MappingUnknownError
from strata.inventory.imports.mapping import load, packaged, packaged_names, parse

LEAST = """
title = "t"
product.sku = { column = "code" }
movement = { quantity = "n", warehouse = "W", zone = "Z", bin = "B" }
post = [{ kind = "receive" }]
"""


@pytest.mark.parametrize("name", packaged_names())
def test_the_packaged_ones_are_sound(name: str) -> None:
    assert load(name) == packaged(name)
    assert load(name).document.title


def test_a_mapping_of_ones_own_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(LEAST)
    mapping = load(str(path))
    assert (mapping.name, mapping.columns()) == ("mine", ("code", "n"))


def test_the_digest_is_of_what_is_said_and_not_of_how_it_is_written() -> None:
    first = parse("m", LEAST.encode())
    assert parse("m", ("# a remark\n" + LEAST.replace(", ", ",   ")).encode()).digest == first.digest
    assert parse("m", LEAST.replace('"B"', '"C"').encode()).digest != first.digest


def test_a_mapping_without_custom_fields_has_the_digest_it_had_before_there_were_any() -> None:
    """By it half-done runs know their mapping, and the same file imported again is found out."""
    assert parse("m", LEAST.encode()).digest == "31d2a3a4ee96a2aa8e41f9944adef2eba8697909e6cdf73c449aff8fc30dd70d"


def test_an_unknown_name_lists_the_known_ones_and_is_never_a_path() -> None:
    with pytest.raises(MappingUnknownError, match=r"online-retail, stock-list"):
        load("online-retial")
    for name in ("../mappings/online-retail", "/etc/passwd", "online-retail.toml", ""):
        with pytest.raises(MappingUnknownError):
            packaged(name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("title", "titel"), "unknown field `titel`"),
        (('{ column = "code" }', '{ column = "code", trim = true }'), "unknown field `trim`"),
        (('{ column = "code" }', '{ column = "code", normalise = ["shout"] }'), "Invalid enum value 'shout'"),
        (('"receive"', '"teleport"'), "Invalid enum value 'teleport'"),
        (('"receive"', '"transfer"'), "a line cannot make a transfer"),
        (('[{ kind = "receive" }]', "[]"), "length >= 1"),
        (("post =", "file = { encoding = 'utf-9' }\npost ="), "there is no encoding «utf-9»"),
        (('bin = "B"', 'bin = " B"'), "movement.bin"),
        (
            ("quantity =", "occurred_at = { column = 't', time_zone = 'Mars/Base' }, quantity ="),
            "time zone «Mars/Base»",
        ),
        (('"receive" }', '"receive", when = [{ column = "n" }] }'), "a condition on «n» asks nothing"),
        (("post =", "refuse = [{ code = 'x', because = 'y', when = [] }]\npost ="), "would refuse every row"),
        (("post =", "refuse = [{ code = 'shortage', because = 'y', when = [] }]\npost ="), "one of Strata's own"),
        (("post =", "product.custom.size = {}\npost ="), "product.custom.size needs a column or a constant"),
        (("post =", "product.custom.size = { column = 'a', constant = 1 }\npost ="), "and not both"),
        (
            ("post =", "product.custom.size = { column = 'a', opening = 1 }\npost ="),
            "product.custom.size has an opening",
        ),
        (("post =", "product.custom.since = { constant = 2026-01-01 }\npost ="), "custom"),
        (("post =", "post = ="), "Invalid"),
    ],
)
def test_a_mistake_is_told_where_it_is(change: tuple[str, str], says: str) -> None:
    with pytest.raises(MappingRefusedError) as refused:
        parse("m", LEAST.replace(*change).encode())
    assert says in refused.value.detail


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MappingRefusedError, match="No such file"):
        load(str(tmp_path / "none.toml"))
