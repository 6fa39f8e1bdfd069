from __future__ import annotations

import pytest

from strata.platform.errors import InvalidInputError
from strata.tenancy.model import RESERVED_SLUGS, validate_slug


@pytest.mark.parametrize("slug", ["a", "acme", "acme-2", "a1b2", "x" * 40])
def test_slugs_that_can_be_labels(slug: str) -> None:
    assert validate_slug(slug) == slug


@pytest.mark.parametrize(
    "slug",
    ["", "-a", "a-", "1a", "Acme", "a.b", "a_b", "a b", "xn--bcher-kva", "a--b", "x" * 41, "ärger", "a\n", "a'"],
)
def test_slugs_that_cannot(slug: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        validate_slug(slug)
    assert refused.value.extra["errors"]


@pytest.mark.parametrize("slug", sorted(RESERVED_SLUGS))
def test_reserved_slugs(slug: str) -> None:
    with pytest.raises(InvalidInputError, match="reserved"):
        validate_slug(slug)
