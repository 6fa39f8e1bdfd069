"""Configuration: the environment is read here, once, into one frozen group per concern.

Every variable starts with STRATA_; nested groups join with two underscores (STRATA_HTTP__PORT). The two that people
set most have short names of their own: STRATA_DATABASE_URL and STRATA_REDIS_URL.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Environment(StrEnum):
    DEVELOPMENT = "development"
    TEST = "test"
    STAGING = "staging"
    PRODUCTION = "production"


class KeyProvider(StrEnum):
    LOCAL = "local"
    VAULT = "vault"


class Pooler(StrEnum):
    """What stands between the application and a cell; TRANSACTION forbids everything that outlives a transaction."""

    NONE = "none"
    TRANSACTION = "transaction"


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HttpSettings(_Group):
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    base_domain: str = "localhost"
    """Tenants are served on <slug>.<base_domain>, the API without a host of its own on api.<base_domain>."""
    console_label: str = "console"
    api_label: str = "api"
    public_scheme: str = "http"
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose X-Forwarded-Host is believed; from anybody else it is ignored."""
    max_body_bytes: int = Field(default=10 * 1024 * 1024, gt=0)
    max_upload_bytes: int = Field(default=200 * 1024 * 1024, gt=0)


class PoolSettings(_Group):
    shared_size: int = Field(default=10, ge=1)
    shared_overflow: int = Field(default=10, ge=0)
    dedicated_size: int = Field(default=2, ge=1)
    dedicated_overflow: int = Field(default=3, ge=0)
    acquire_timeout_s: float = Field(default=5.0, gt=0)
    recycle_after_s: int = Field(default=1800, gt=0)
    statement_timeout_ms: int = Field(default=30_000, ge=0)
    pooler: Pooler = Pooler.NONE


class CacheSettings(_Group):
    context_ttl_s: float = Field(default=300.0, gt=0, le=300.0)
    """The longest a cached TenantContext may be used, over both levels together."""
    context_ttl_without_redis_s: float = Field(default=5.0, gt=0)
    """The longest while no invalidation can arrive."""
    unknown_ttl_s: float = Field(default=2.0, gt=0)
    """How long «there is no such tenant» is believed."""
    contexts_in_process: int = Field(default=4096, ge=1)
    redis_timeout_s: float = Field(default=0.05, gt=0)


class FenceSettings(_Group):
    wait_s: float = Field(default=5.0, gt=0)
    """How long a request waits for a cut-over to end before it gets a 503."""


class TokenSettings(_Group):
    issuer: str = "strata"
    lifetime_s: int = Field(default=7 * 24 * 3600, gt=0)


class VaultSettings(_Group):
    address: str = ""
    token: SecretStr = SecretStr("")
    mount: str = "transit"
    key: str = "strata"


class KeySettings(_Group):
    provider: KeyProvider = KeyProvider.LOCAL
    local_file: Path | None = None
    """The embedded key file; default: <data_dir>/keys/local.key."""
    vault: VaultSettings = VaultSettings()


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="STRATA_",
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
    )

    environment: Environment = Environment.DEVELOPMENT
    data_dir: Path = Path(".strata")
    database_url: SecretStr | None = None
    """The catalog's database, as an administrator (a superuser: it also makes the cells). None: the embedded server."""
    redis_url: SecretStr | None = None
    role_prefix: str = Field(default="strata", pattern=r"^[a-z][a-z0-9_]{0,30}$")
    """Begins the names of the roles Strata makes: roles belong to a whole PostgreSQL cluster, which others may use too."""
    http: HttpSettings = HttpSettings()
    pool: PoolSettings = PoolSettings()
    cache: CacheSettings = CacheSettings()
    fence: FenceSettings = FenceSettings()
    tokens: TokenSettings = TokenSettings()
    keys: KeySettings = KeySettings()

    @model_validator(mode="after")
    def _local_key_is_for_development(self) -> Settings:
        if self.keys.provider is KeyProvider.LOCAL and self.environment in {
            Environment.STAGING,
            Environment.PRODUCTION,
        }:
            message = (
                f"the local key provider is for development; with STRATA_ENVIRONMENT={self.environment} "
                "set STRATA_KEYS__PROVIDER=vault and STRATA_KEYS__VAULT__ADDRESS"
            )
            raise ValueError(message)
        return self

    @property
    def local_key_file(self) -> Path:
        return self.keys.local_file or self.data_dir / "keys" / "local.key"
