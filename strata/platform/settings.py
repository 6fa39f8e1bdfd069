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
    max_unpacked_bytes: int = Field(default=512 * 1024 * 1024, gt=0)
    """Of an upload that is packed."""


class PoolSettings(_Group):
    """Connections of one process to the cells."""

    shared_size: int = Field(default=10, ge=1)
    """Of each shared cell; kept open also while idle."""
    shared_overflow: int = Field(default=10, ge=0)
    """On top of that at most, closed when idle."""
    dedicated_size: int = Field(default=2, ge=1)
    dedicated_overflow: int = Field(default=3, ge=0)
    dedicated_budget: int = Field(default=100, ge=1)
    """Open connections to dedicated cells, over all of them."""
    acquire_timeout_s: float = Field(default=5.0, gt=0)
    """How long a request waits for a connection, and a connection for the server, before a 503."""
    waiting_limit: int = Field(default=500, ge=1)
    """Requests that may wait for one cell's connections; the next gets its 503 at once."""
    activity_window_s: float = Field(default=10.0, gt=0)
    """Tenants seen within it share a cell's connections by quota."""
    idle_close_s: float = Field(default=60.0, gt=0)
    recycle_after_s: int = Field(default=1800, gt=0)
    recycle_after_transactions: int = Field(default=50_000, ge=1)
    recycle_after_schemas: int = Field(default=100, ge=1)
    """Different schemas that a back end may have served; its caches of them never shrink."""
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


class LimitSettings(_Group):
    """How a process counts requests against its tenants' limits (tenancy/limits)."""

    redis_patience_s: float = Field(default=0.01, gt=0)
    """How long a request may wait for Redis to give tokens; then the process's own share of the limit decides."""
    lease_s: float = Field(default=1.0, gt=0)
    """How long a process may keep tokens that it has not spent."""
    soft_wait_s: float = Field(default=1.0, gt=0)
    """How long a request above the soft limit of requests at once waits for its turn."""


class UsageSettings(_Group):
    flush_s: float = Field(default=10.0, gt=0)
    """How often a process reports what tenants have used: what a crash loses."""
    neighbours_window_s: float = Field(default=2.0, gt=0)
    """How often it looks for tenants that load their cell out of their habit."""


class FlagSettings(_Group):
    """Feature flags as a process holds them (tenancy/flags/holder.py)."""

    ttl_s: float = Field(default=300.0, gt=0, le=300.0)
    """The longest without asking the catalog, should a change not have been heard."""
    ttl_without_redis_s: float = Field(default=5.0, gt=0)
    """The longest while nothing can be heard."""
    uses_every_s: float = Field(default=60.0, gt=0)
    """How often what was counted is written; a process that dies loses what it counted since."""


class FenceSettings(_Group):
    wait_s: float = Field(default=5.0, gt=0)
    """How long a request waits for a cut-over to end before it gets a 503."""


class JobSettings(_Group):
    """One worker process and the queue it serves."""

    concurrency: int = Field(default=10, ge=1)
    """Jobs a worker runs at once."""
    pool_size: int = Field(default=4, ge=1)
    """Connections to the catalog for taking jobs and giving them back, beside one that listens."""
    poll_s: float = Field(default=1.0, gt=0)
    """How often an idle worker looks, should no notification come: jobs for later, places that other workers freed."""
    heartbeat_s: float = Field(default=5.0, gt=0)
    stalled_after_s: float = Field(default=30.0, gt=0)
    """A worker not heard of for so long is dead; others take up its jobs."""
    stop_timeout_s: float = Field(default=15.0, gt=0)
    """How long running jobs may take to end when the worker is stopped; then they are queued again."""
    tick_s: float = Field(default=5.0, gt=0)
    """How often schedules are looked at."""
    keep_done_h: int = Field(default=24, ge=1)
    keep_dead_days: int = Field(default=30, ge=1, le=60)


class ImportSettings(_Group):
    """How workers import files (inventory/imports/pace.py)."""

    batch_rows: int = Field(default=250, ge=1, le=10_000)
    """Of the file, in one transaction."""
    most_share: float = Field(default=0.5, gt=0, le=1)
    """Of the time, in which an import posts while nobody else works in the cell."""
    least_share: float = Field(default=0.005, gt=0, le=1)
    """While others do: the consumers of its events work about as long again."""


class UpgradeSettings(_Group):
    """How revisions reach thousands of schemas (provisioning/upgrades.py)."""

    jobs: int = Field(default=4, ge=1)
    """Connections to cells, over all of them."""
    batch: int = Field(default=25, ge=1)
    """Schemas in one round trip, each in a transaction of its own."""
    tries: int = Field(default=5, ge=1)
    """Of a schema whose tables are in use, in one run."""
    first_lock_timeout_ms: int = Field(default=250, ge=1)
    """Requests queue behind DDL that waits for a lock: short at first, double with each try."""
    lock_timeout_ms: int = Field(default=4000, ge=1)
    statement_timeout_ms: int = Field(default=60_000, ge=1)
    pause_s: float = Field(default=0.5, gt=0)
    """Before the second try; double with each."""


class EventSettings(_Group):
    look_s: float = Field(default=2.0, gt=0)
    """How often the relay looks into a shared cell's outbox that nobody has rung for."""
    look_dedicated_s: float = Field(default=60.0, gt=0)
    look_without_redis_s: float = Field(default=0.1, gt=0)
    """How often into a shared cell's while no ring can arrive; into a dedicated one's: `look_s`."""
    close_after_s: float = Field(default=30.0, gt=0)
    """A cell that will not be looked at for so long costs no connection meanwhile."""
    lease_look_s: float = Field(default=0.5, gt=0)
    """How often a relay tries for the cells that another one has: how long events rest when one dies."""
    tenants_at_once: int = Field(default=4, ge=1)
    """Of one cell, told at the same time."""
    tenants_at_a_look: int = Field(default=1000, ge=1)
    """Tenants with events that one question to a cell's outbox names; it goes on until it knows them all."""
    batch: int = Field(default=500, ge=1)
    tries: int = Field(default=5, ge=1)
    """Of an event that its consumer fails over, before it becomes a dead letter."""
    longest_pause_s: float = Field(default=5.0, gt=0)
    handling_timeout_s: float = Field(default=30.0, gt=0)


class MigratorSettings(_Group):
    """Moves of tenants (docs/moving.md)."""

    lease_s: float = Field(default=5.0, gt=0)
    """How long a worker that says nothing keeps a move; another takes it up then."""
    heartbeat_s: float = Field(default=0.5, gt=0)
    poll_s: float = Field(default=1.0, gt=0)
    copy_workers: int = Field(default=2, ge=1, le=16)
    moves_per_server: int = Field(default=4, ge=1)
    """Moves that copy, catch up or verify at the same time on one server, from it or to it; others wait in `pending`."""
    throttle_standby_lag_bytes: int = Field(default=64 * 1024**2, ge=0)
    """A copy and a comparison slow down while a standby of either end is further behind,"""
    throttle_slot_room_bytes: int = Field(default=512 * 1024**2, ge=0)
    """while a slot has less log left before max_slot_wal_keep_size gives it up,"""
    throttle_slower_times: float = Field(default=3.0, ge=0)
    """and while a small commit takes so many times what it took before the copy,"""
    throttle_slow_ms: float = Field(default=20.0, ge=0)
    """and more than this,"""
    throttle_late_share: float = Field(default=0.1, ge=0, le=1)
    """and while so much more often than before somebody at either end waits for a processor."""
    throttle_share: float = Field(default=0.2, gt=0, le=1)
    """Of its time that a worker reads rows when nothing slows it down; it rests in between, for the neighbours."""
    slot_deadline_s: float = Field(default=30.0, gt=0)
    """How long the making of a slot may wait for writing transactions anywhere in the cluster."""
    make_ready_s: float = Field(default=1.0, ge=0)
    """How long a cut-over waits for the applications to have connections to the new home, outside its window."""
    holder_age_ms: float = Field(default=100.0, gt=0)
    """No cut-over begins while a transaction of the tenant's is older,"""
    holder_patience_s: float = Field(default=5.0, gt=0)
    """until there has been one for all this time: then it may be twice as old, then three times, up to what the lock waits for."""
    lock_deadline_ms: int = Field(default=300, ge=1)
    """Within a cut-over: how long those inside the fence may take to end."""
    drain_deadline_ms: int = Field(default=150, ge=1)
    """And how long the last changes may take to arrive."""
    lag_gate_bytes: int = Field(default=64 * 1024, ge=0)
    """No cut-over begins while more of the log than this is to be read."""
    called_off_limit: int = Field(default=200, ge=1)
    """Cut-overs in a row that may be called off before a person is asked."""
    wal_cap_bytes: int = Field(default=8 * 1024**3, gt=0)
    """How much log a move may make a server keep; beyond it retention ends, or the copy starts again."""
    retentions_per_cell: int = Field(default=16, ge=1)
    """Each way back that is kept open decodes the whole cell's log."""
    delete_batch_rows: int = Field(default=5_000, ge=1)
    faults: str = ""
    """Named points at which a test makes this process die, sleep or fail; refused outside tests."""


class ProvisioningSettings(_Group):
    spare_schemas: int = Field(default=4, ge=0)
    """Kept ready in each shared cell by the worker: making a schema tenant then takes milliseconds."""


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
    flags: FlagSettings = FlagSettings()
    fence: FenceSettings = FenceSettings()
    limits: LimitSettings = LimitSettings()
    usage: UsageSettings = UsageSettings()
    migrator: MigratorSettings = MigratorSettings()
    events: EventSettings = EventSettings()
    upgrades: UpgradeSettings = UpgradeSettings()
    provisioning: ProvisioningSettings = ProvisioningSettings()
    jobs: JobSettings = JobSettings()
    imports: ImportSettings = ImportSettings()
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

    @model_validator(mode="after")
    def _faults_are_for_tests(self) -> Settings:
        if self.migrator.faults and self.environment is not Environment.TEST:
            message = "STRATA_MIGRATOR__FAULTS makes this process die on purpose; it is for tests alone"
            raise ValueError(message)
        return self

    @property
    def local_key_file(self) -> Path:
        return self.keys.local_file or self.data_dir / "keys" / "local.key"
