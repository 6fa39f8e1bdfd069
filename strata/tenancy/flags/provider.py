"""Flags through OpenFeature (openfeature.dev), so that code asks them the way it would ask any vendor's.

    client.get_boolean_value("imports-paused", False, flag_context(context))

The targeting key is the tenant's id. `flag_context` brings the tenant's context along; without it, it is the one that this
process holds. What the caller adds are the user's attributes. An unknown flag gives the caller's default, and so does one whose payload is of another type.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagResolutionDetails
from openfeature.flag_evaluation import Reason as StandardReason
from openfeature.provider import AbstractProvider, Metadata
from openfeature.provider.no_op_provider import NoOpProvider

from strata.platform.ids import new_id
from strata.tenancy.context import TenantContext
from strata.tenancy.flags.holder import Flags
from strata.tenancy.flags.model import Reason

if TYPE_CHECKING:
    from openfeature.flag_evaluation import FlagValueType

V = TypeVar("V")

Peek = Callable[[UUID], TenantContext | None]
"""The tenant's context, if this process holds it; never waits."""

_TENANT = "strata.tenant"

_STANDARD: Mapping[Reason, StandardReason] = {
    Reason.KILLED: StandardReason.DISABLED,
    Reason.NOT_YET: StandardReason.DISABLED,
    Reason.ENDED: StandardReason.DISABLED,
    Reason.OVERRIDE: StandardReason.TARGETING_MATCH,
    Reason.PLAN: StandardReason.TARGETING_MATCH,
    Reason.PREREQUISITE: StandardReason.TARGETING_MATCH,
    Reason.RULE: StandardReason.TARGETING_MATCH,
    Reason.ROLLOUT: StandardReason.SPLIT,
    Reason.DEFAULT: StandardReason.DEFAULT,
}


def flag_context(
    context: TenantContext, user: Mapping[str, str | int | float | bool] | None = None
) -> EvaluationContext:
    """`user`: what rules call `user.…`. The tenant's context goes along: whoever has it need not hope that it is still held."""
    attributes: dict[str, Any] = {**(user or {}), _TENANT: context}
    return EvaluationContext(str(context.id), attributes)


class FlagProvider(AbstractProvider):
    def __init__(self, flags: Flags, peek: Peek) -> None:
        super().__init__()
        self._flags = flags
        self._peek = peek

    def get_metadata(self) -> Metadata:
        return Metadata(name="strata")

    def resolve_boolean_details(
        self, flag_key: str, default_value: bool, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[bool]:
        return self._resolve(flag_key, default_value, (bool,), evaluation_context)

    def resolve_string_details(
        self, flag_key: str, default_value: str, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[str]:
        return self._resolve(flag_key, default_value, (str,), evaluation_context)

    def resolve_integer_details(
        self, flag_key: str, default_value: int, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[int]:
        return self._resolve(flag_key, default_value, (int,), evaluation_context)

    def resolve_float_details(
        self, flag_key: str, default_value: float, evaluation_context: EvaluationContext | None = None
    ) -> FlagResolutionDetails[float]:
        return self._resolve(flag_key, default_value, (float, int), evaluation_context)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        return self._resolve(flag_key, default_value, (list, dict), evaluation_context)

    def _resolve(
        self, key: str, default: V, kinds: tuple[type, ...], evaluation_context: EvaluationContext | None
    ) -> FlagResolutionDetails[V]:
        tenant = None if evaluation_context is None else self._tenant(evaluation_context)
        if tenant is None or evaluation_context is None:
            return _error(
                default, ErrorCode.TARGETING_KEY_MISSING, "The targeting key is the id of a tenant in use here."
            )
        outcome = self._flags.evaluate(key, tenant, evaluation_context.attributes)
        if outcome.reason is Reason.UNKNOWN:
            return _error(default, ErrorCode.FLAG_NOT_FOUND, f"There is no flag «{key}».")
        value: Any = outcome.value
        if type(value) not in kinds:
            return _error(
                default, ErrorCode.TYPE_MISMATCH, f"Variant «{outcome.variant}» of «{key}» is of another type."
            )
        return FlagResolutionDetails(
            value,
            reason=_STANDARD[outcome.reason],
            variant=outcome.variant,
            flag_metadata={"reason": outcome.reason.value, "detail": outcome.detail},
        )

    def _tenant(self, evaluation_context: EvaluationContext) -> TenantContext | None:
        given: object = evaluation_context.attributes.get(_TENANT)
        if isinstance(given, TenantContext):
            return given
        targeting_key = evaluation_context.targeting_key
        try:
            return None if targeting_key is None else self._peek(UUID(targeting_key))
        except ValueError:
            return None


@asynccontextmanager
async def serving_flags(flags: Flags, peek: Peek) -> AsyncIterator[OpenFeatureClient]:
    """The flags, kept up to date for the block, and a client of theirs.

    The SDK keeps providers for the whole process, by domain: each runtime in a process has a domain of its own.
    """
    domain = f"strata-{new_id()}"
    await flags.start()
    api.set_provider_and_wait(FlagProvider(flags, peek), domain)
    try:
        yield api.get_client(domain)
    finally:
        api.set_provider_and_wait(NoOpProvider(), domain)
        await flags.close()


def _error(default: V, code: ErrorCode, message: str) -> FlagResolutionDetails[V]:
    return FlagResolutionDetails(default, error_code=code, error_message=message, reason=StandardReason.ERROR)
