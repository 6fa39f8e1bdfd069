"""Style sheet, scripts: named after their content, so that a browser keeps them for ever and never has an old one."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from pathlib import Path

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send

_DIRECTORY = Path(__file__).with_name("static")
_PREFIX = "/static/"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
_FOR_EVER = b"public, max-age=31536000, immutable"


class Asset(msgspec.Struct, frozen=True):
    path: str
    media_type: str
    body: bytes
    compressed: bytes


@cache
def assets() -> dict[str, Asset]:
    """By file name, read once."""
    found = {}
    for file in sorted(_DIRECTORY.iterdir()):
        if file.suffix not in _TYPES:
            continue
        body = file.read_bytes()
        digest = hashlib.sha256(body).hexdigest()[:16]
        found[file.name] = Asset(
            path=f"{_PREFIX}{file.stem}.{digest}{file.suffix}",
            media_type=_TYPES[file.suffix],
            body=body,
            compressed=gzip.compress(body, mtime=0),
        )
    return found


def asset_url(name: str) -> str:
    return assets()[name].path


class StaticAssets:
    """Answers before any tenant is looked for: the page that says a tenant is suspended has a style too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._by_path = {asset.path: asset for asset in assets().values()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asset = self._by_path.get(scope["path"]) if scope["path"].startswith(_PREFIX) else None
        if asset is None or scope.get("method") not in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        squeezed = _takes_gzip(scope)
        body = asset.compressed if squeezed else asset.body
        headers = [
            (b"content-type", asset.media_type.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", _FOR_EVER),
            (b"vary", b"Accept-Encoding"),
        ]
        if squeezed:
            headers.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        body = b"" if scope.get("method") == "HEAD" else body
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _takes_gzip(scope: Scope) -> bool:
    return any(name == b"accept-encoding" and b"gzip" in value for name, value in scope["headers"])
