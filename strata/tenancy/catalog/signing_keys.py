"""The catalog as the place where signing keys are kept (platform.tokens.SigningKeyStore)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import case, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from strata.platform.signing import StoredSigningKey
from strata.tenancy.catalog.tables import SigningKeyRow, SigningKeyState


class CatalogSigningKeys:
    def __init__(self, engine: AsyncEngine, token_lifetime_s: int) -> None:
        self._engine = engine
        self._token_lifetime_s = token_lifetime_s

    async def load(self) -> Sequence[StoredSigningKey]:
        statement = (
            select(SigningKeyRow.kid, SigningKeyRow.private_sealed, SigningKeyRow.public_jwk)
            .where(or_(SigningKeyRow.state == SigningKeyState.CURRENT, SigningKeyRow.retires_at > func.now()))
            .order_by(
                case((SigningKeyRow.state == SigningKeyState.CURRENT, 0), else_=1), SigningKeyRow.created_at.desc()
            )
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(statement)).all()
        return [StoredSigningKey(row.kid, row.private_sealed, row.public_jwk) for row in rows]

    async def add_current(self, key: StoredSigningKey, *, replacing: str | None) -> bool:
        retire = (
            update(SigningKeyRow)
            .where(SigningKeyRow.kid == replacing, SigningKeyRow.state == SigningKeyState.CURRENT)
            .values(state=SigningKeyState.PREVIOUS, retires_at=func.now() + timedelta(seconds=self._token_lifetime_s))
            .returning(SigningKeyRow.kid)
        )
        add = (
            insert(SigningKeyRow)
            .values(
                kid=key.kid,
                state=SigningKeyState.CURRENT,
                private_sealed=key.private_sealed,
                public_jwk=key.public_jwk,
            )
            .on_conflict_do_nothing()
            .returning(SigningKeyRow.kid)
        )
        async with self._engine.begin() as connection:
            if replacing is not None and (await connection.execute(retire)).first() is None:
                return False
            return (await connection.execute(add)).first() is not None
