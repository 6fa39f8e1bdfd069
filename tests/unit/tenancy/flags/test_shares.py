"""Shares: the same tenants for ever, only more of them when raised, and none of it hanging together.

Chi-squared against the critical value at 0.001; the tenants are the same in every run, so nothing here is left to luck.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

import mmh3
import msgspec
import pytest

from strata.tenancy.flags.hashing import bucket_of
from strata.tenancy.flags.making import flag_from
from strata.tenancy.flags.model import EVERYBODY, HASH_VERSION, Flag
from tests.builders.flags import compiled, flag, tenant

TENANTS = [tenant(number) for number in range(20_000)]
CRITICAL = {1: 10.83, 2: 13.82, 9: 27.88, 99: 148.2}
"""Of chi-squared at 0.001, by degrees of freedom."""


def chi_squared(observed: list[int], expected: list[float]) -> float:
    return sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))


def independent(left: list[bool], right: list[bool]) -> float:
    table = Counter(zip(left, right, strict=True))
    count, observed, expected = len(left), [], []
    for one in (True, False):
        for other in (True, False):
            observed.append(table[one, other])
            expected.append(left.count(one) * right.count(other) / count)
    return chi_squared(observed, expected)


def within(share: int, key: str = "new-labels", **members: str) -> list[bool]:
    flags = compiled(flag(key, rollout=share, **members))
    return [flags.evaluate(key, context).is_on for context in TENANTS]


def test_the_hash_is_the_one_written_down() -> None:
    one = UUID("0197a4c0-1111-7222-8333-444455556666")
    text = b"seed\0my-flag\0" + one.bytes
    assert bucket_of("seed", "my-flag")(one) == mmh3.hash(text, signed=False) % 10_000
    # A change of this number moves every tenant of every flag: it needs another hash_version.
    assert bucket_of("seed", "my-flag")(one) == 9171


def test_the_hash_version_is_stored_with_the_flag_and_no_change_draws_anew() -> None:
    made = flag_from("labels", {}, None)
    assert msgspec.to_builtins(made)["hash_version"] == HASH_VERSION
    older = msgspec.structs.replace(made, hash_version=0)
    changed = flag_from("labels", {"rollout": 5000}, older)
    assert (changed.seed, changed.variant_seed, changed.hash_version) == (made.seed, made.variant_seed, 0)
    # Documents that were written before it stood in them.
    assert msgspec.convert({"key": "labels", "seed": "s1", "variant_seed": "s2"}, Flag).hash_version == 1


def test_shares_are_what_they_say() -> None:
    for share in (1, 50, 1234, 5000, 9900):
        found = sum(within(share))
        assert chi_squared([found, 20_000 - found], [2 * share, 20_000 - 2 * share]) < CRITICAL[1], share
    assert sum(within(0)) == 0
    assert sum(within(EVERYBODY)) == 20_000


def test_numbers_are_even() -> None:
    bucket = bucket_of("s1", "new-labels")
    found = Counter(bucket(context.id) // 100 for context in TENANTS)
    assert chi_squared([found[n] for n in range(100)], [200.0] * 100) < CRITICAL[99]


def test_raising_a_share_only_adds() -> None:
    before: list[bool] = [False] * len(TENANTS)
    for share in (0, 1, 10, 250, 2500, 2501, 7777, EVERYBODY):
        after = within(share)
        assert all(now for was, now in zip(before, after, strict=True) if was)
        before = after


def test_flags_do_not_hang_together() -> None:
    for other in ("new-label", "new-labels2", "labels-new", "a", "b"):
        assert independent(within(5000), within(5000, other)) < CRITICAL[1], other
    assert independent(within(5000), within(5000, seed="s2")) < CRITICAL[1]
    assert within(5000) != within(5000, seed="s2")


def test_variants_are_shared_out_and_do_not_hang_together_with_the_share() -> None:
    members: dict[str, Any] = {
        "variants": {"off": 0, "a": 1, "b": 2, "c": 3},
        "on": "a",
        "split": {"a": 5000, "b": 3000, "c": 2000},
    }
    flags = compiled(flag(rollout=EVERYBODY, **members))
    chosen = [flags.evaluate("new-labels", context).variant for context in TENANTS]
    found = Counter(chosen)
    assert chi_squared([found[v] for v in "abc"], [10_000, 6000, 4000]) < CRITICAL[2]
    assert independent(within(5000), [variant == "a" for variant in chosen]) < CRITICAL[1]
    half = compiled(flag(rollout=5000, **members))
    of_half = Counter(half.evaluate("new-labels", context).variant for context in TENANTS)
    within_half = of_half.total() - of_half["off"]
    expected = [within_half * share for share in (0.5, 0.3, 0.2)]
    assert chi_squared([of_half[v] for v in "abc"], expected) < CRITICAL[2]
    for context, variant in zip(TENANTS, chosen, strict=True):
        again = half.evaluate("new-labels", context).variant
        assert again in {variant, "off"}, "raising the share changes nobody's variant"


def test_a_variant_with_no_share_is_never_given() -> None:
    flags = compiled(flag(rollout=EVERYBODY, split={"on": EVERYBODY, "off": 0}))
    assert {flags.evaluate("new-labels", context).variant for context in TENANTS[:2000]} == {"on"}


@pytest.mark.parametrize(("one", "other"), [(("ab", "c"), ("a", "bc")), (("a", "b-c"), ("a-b", "c"))])
def test_seed_and_key_do_not_run_together(one: tuple[str, str], other: tuple[str, str]) -> None:
    numbers = [[bucket_of(*each)(context.id) for context in TENANTS[:50]] for each in (one, other)]
    assert numbers[0] != numbers[1]
