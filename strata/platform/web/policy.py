"""Content-Security-Policy of a page: our files, the brand's pictures, one style element with a nonce; nothing else runs."""

from __future__ import annotations

import secrets
from collections.abc import Iterable


def new_nonce() -> str:
    return secrets.token_urlsafe(16)


def content_policy(nonce: str, image_origins: Iterable[str] = ()) -> str:
    """`image_origins` come out of `look_of`, which lets only plain https origins through."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            f"style-src 'self' 'nonce-{nonce}'",
            " ".join(("img-src 'self' data:", *image_origins)),
            "font-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )
