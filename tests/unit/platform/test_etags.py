from __future__ import annotations

import pytest

from strata.platform.etags import PreconditionFailedError, check_if_match, etag, is_unchanged


@pytest.mark.parametrize("header", [None, "*", ' "v3" ', '"v1", "v3"', '"x","v3","y"'])
def test_if_match_that_names_this_version_passes(header: str | None) -> None:
    check_if_match(header, 3)


@pytest.mark.parametrize("header", ['"v2"', 'W/"v3"', "v3", "", '"v33"', '"v3'])
def test_if_match_that_does_not_is_told_the_current_tag(header: str) -> None:
    with pytest.raises(PreconditionFailedError) as caught:
        check_if_match(header, 3)
    assert caught.value.headers == {"ETag": etag(3)}


@pytest.mark.parametrize(
    ("header", "unchanged"),
    [
        (None, False),
        ("*", True),
        ('"v3"', True),
        ('W/"v3"', True),
        ('"v2", "v3"', True),
        ('"v2"', False),
        ("v3", False),
    ],
)
def test_if_none_match_compares_weakly(header: str | None, unchanged: bool) -> None:
    assert is_unchanged(header, etag(3)) is unchanged
