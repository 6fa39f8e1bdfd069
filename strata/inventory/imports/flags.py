"""The feature flags that imports ask, through OpenFeature; docs/flags.md tells staff what each does."""

from __future__ import annotations

from openfeature.client import OpenFeatureClient

from strata.platform.errors import UnavailableError
from strata.platform.settings import ImportSettings
from strata.tenancy.context import TenantContext
from strata.tenancy.flags.provider import flag_context

PAUSED = "imports-paused"
"""On: no new file is taken; those that were go on."""
BATCH_ROWS = "import-batch-rows"
"""A number: rows of a file in one transaction, in place of the setting."""

_MOST_ROWS = 10_000
_RETRY_AFTER_S = 300


class ImportsPausedError(UnavailableError):
    code = "imports-paused"
    title = "Imports are paused"

    def __init__(self) -> None:
        super().__init__(
            "We take no new files at the moment; those that are queued go on. Send yours again in a few minutes.",
            retry_after_s=_RETRY_AFTER_S,
        )


def are_paused(flags: OpenFeatureClient, context: TenantContext) -> bool:
    return flags.get_boolean_value(PAUSED, default_value=False, evaluation_context=flag_context(context))


def refuse_while_paused(flags: OpenFeatureClient, context: TenantContext) -> None:
    if are_paused(flags, context):
        raise ImportsPausedError


def batch_rows(flags: OpenFeatureClient, context: TenantContext, settings: ImportSettings) -> int:
    wanted = flags.get_integer_value(BATCH_ROWS, settings.batch_rows, flag_context(context))
    return min(max(wanted, 1), _MOST_ROWS)
