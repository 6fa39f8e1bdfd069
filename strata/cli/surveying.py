"""The survey of revisions, for commands that may find nothing to do: connected to nothing yet, and light to import."""

from __future__ import annotations

from strata.migrations import MIGRATIONS
from strata.platform.errors import ConfigurationError
from strata.platform.keys.provider import key_port
from strata.platform.settings import Settings
from strata.tenancy.cell.schema_revisions import Chains
from strata.tenancy.provisioning.upgrade_survey import UpgradeSurvey

_SCHEMES = ("postgresql://", "postgres://")


def survey(settings: Settings) -> UpgradeSurvey:
    """Of the catalog that the settings name."""
    dsn = settings.database_url.get_secret_value() if settings.database_url else ""
    if not dsn.startswith(_SCHEMES):
        message = "A database address must read postgresql://user:password@host:port/database."
        raise ConfigurationError(message)
    return UpgradeSurvey(dsn, key_port(settings), Chains.at(MIGRATIONS), settings.upgrades.jobs)
