from __future__ import annotations

import pytest

from strata.identity.pages.session import safe_path


@pytest.mark.parametrize(
    "path", ["/stock", "/stock?q=a%26b&warehouse=HAM", "/products/1#x", "/a//b", "/x?u=https://a.example/"]
)
def test_paths_of_this_host_are_kept(path: str) -> None:
    assert safe_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "stock",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "/\n/evil.example",
        " //evil.example",
        "/stock\r\nSet-Cookie: x=1",
        "/ü",
        "/sign-in?next=/sign-in",
        "/sign-out",
        "/" + "a" * 3000,
    ],
)
def test_everything_else_leads_to_the_start(path: str) -> None:
    assert safe_path(path) == "/"
