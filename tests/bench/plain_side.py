"""The plain single-tenant application as measured: its database, its token, its two variants."""

from __future__ import annotations

import sys
import time

import asyncpg
import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.bench import goods
from tests.bench.ground import Ground, Server
from tests.bench.peers.plain.schema import statements
from tests.bench.strata_side import POOL

DATABASE = "bench_plain"
_ROLE = "bench_plain_app"
BARE, EDGE = "plain", "plain with edge"
VARIANTS = (BARE, EDGE)
HOST = "plain.localhost"


async def prepare(ground: Ground) -> str:
    """Make and fill the database. Returns a token for the variant that checks one; its key lies in the directory."""
    await ground.make_database(DATABASE)
    connection = await asyncpg.connect(ground.dsn(DATABASE))
    try:
        for statement in (*statements(), *goods.FILL):
            await connection.execute(statement)
        # What Strata sets on the role of its application, and somebody careful would here.
        await connection.execute(f"ALTER DATABASE {DATABASE} SET jit = off")
        # No superuser, whom PostgreSQL asks for no right to any table or function: nobody serves as one.
        await connection.execute(
            f"CREATE ROLE {_ROLE} LOGIN PASSWORD '{_ROLE}';"
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {_ROLE}"
        )
    finally:
        await connection.close()
    await ground.settle(DATABASE)
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (ground.directory / "plain.pem").write_bytes(public)
    claims = {
        "sub": "bench",
        "exp": int(time.time()) + 86_400,
        "permissions": ["products:read", "movements:write", "stock:read", "locations:read", "movements:read"],
    }
    return jwt.encode(claims, key, algorithm="ES256")


def serve(ground: Ground, name: str, *, address: str | None = None) -> Server:
    """`address`: host and port of the database, if not the server's own."""
    address = address or f"127.0.0.1:{ground.postgres.port}"
    dsn = f"postgresql+asyncpg://{_ROLE}:{_ROLE}@{address}/{DATABASE}"
    command = [sys.executable, "-m", "tests.bench.peers.plain.app", "--port", "{port}", "--dsn", dsn]
    command += ["--pool", str(POOL[0]), str(POOL[1])]
    if name == EDGE:
        command += ["--public-key", str(ground.directory / "plain.pem")]
    return ground.start(name.replace(" ", "-"), command)
