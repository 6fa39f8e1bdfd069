"""Where product code asks whether a tenant may have something. What is rolled out is another question (tenancy/flags)."""

from __future__ import annotations

from enum import StrEnum

from strata.platform.errors import ForbiddenError
from strata.tenancy.context import TenantContext


class Feature(StrEnum):
    """Those of the plan catalogue that something here depends on."""

    IMPORT = "import"
    TRANSFERS = "transfers"
    CUSTOM_DOMAIN = "custom-domain"


class FeatureMissingError(ForbiddenError):
    code = "feature-missing"
    title = "Not in the plan"

    def __init__(self, feature: Feature) -> None:
        super().__init__(
            f"The plan of this account does not include «{feature}»; a larger plan or an add-on may. What it includes stands "
            "under Account, Plan.",
            extra={"feature": feature.value},
        )
        self.feature = feature


def need(context: TenantContext, feature: Feature) -> None:
    """Raise FeatureMissingError unless the tenant is entitled to it. Asks nobody: the context says."""
    if feature not in context.features:
        raise FeatureMissingError(feature)
