"""What a job is: a handler with a name, the scope it runs in, and what happens when it fails."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec

from strata.platform.errors import ConfigurationError
from strata.platform.jobs.schedules import Schedule
from strata.platform.jobs.services import Services

J = TypeVar("J")
A = TypeVar("A", bound=msgspec.Struct)

DEFAULT_ATTEMPTS = 5


class Queue(StrEnum):
    DEFAULT = "default"
    BULK = "bulk"
    """Long or many; give it workers of its own where the default queue must stay quick."""
    PLATFORM = "platform"


class Scope(StrEnum):
    OWNER = "owner"
    PLATFORM = "platform"


class Retry(msgspec.Struct, frozen=True):
    """After how many failures a job is dead, and how long it waits between them."""

    attempts: int | None = None
    """None: what the owner's plan says."""
    first_delay_s: float = 2.0
    longest_delay_s: float = 600.0

    def delay_s(self, failures: int) -> float:
        """Doubles with every failure; spread, so that what failed together does not come back together."""
        return spread(min(self.first_delay_s * 2 ** min(failures - 1, 30), self.longest_delay_s))


def spread(delay_s: float) -> float:
    return delay_s * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing


class NoArguments(msgspec.Struct, frozen=True):
    pass


class Refuse(Exception):  # noqa: N818 - what a handler does, not what went wrong
    """Raised by a handler: trying again is no use. The sentence is shown beside the dead letter."""


class Running(msgspec.Struct, frozen=True):
    """A job that a worker has taken."""

    id: int
    name: str
    owner: str
    """Empty: the platform."""
    key: str
    """The same however often the job runs."""
    attempt: int
    """How often it has run before."""
    request_id: str | None


class Job(msgspec.Struct, frozen=True):
    """What every handler gets; each scope adds what is in reach there."""

    running: Running
    services: Services

    @property
    def id(self) -> int:
        return self.running.id

    @property
    def key(self) -> str:
        return self.running.key

    @property
    def attempt(self) -> int:
        return self.running.attempt


class PlatformJob(Job, frozen=True):
    """No tenant is in reach."""


class Declaration(Generic[J, A]):
    """A job as code declares it. `J` is what its scope hands to the handler."""

    def __init__(
        self,
        name: str,
        handler: Callable[[J, A], Awaitable[None]],
        *,
        scope: Scope,
        queue: Queue,
        retry: Retry,
        timeout_s: float,
        schedule: Schedule | None,
        heir: Declaration[J, Any] | None = None,
    ) -> None:
        self.name = name
        self.handler = handler
        self.scope = scope
        self.queue = queue
        self.retry = retry
        self.timeout_s = timeout_s
        self.schedule = schedule
        self.heir = heir
        """The job that is queued when this one dies, with its arguments and `died_of` (a code) and `detail`."""
        self.arguments: type[A] = _arguments_of(name, handler)
        if schedule is not None:
            _can_be_made_of_nothing(name, self.arguments)

    def __repr__(self) -> str:
        return f"<job {self.name}>"


AnyDeclaration = Declaration[Any, Any]


def platform_job(
    name: str,
    *,
    queue: Queue = Queue.PLATFORM,
    retry: Retry = Retry(),  # noqa: B008 - frozen
    timeout_s: float = 900.0,
    schedule: Schedule | None = None,
) -> Callable[[Callable[[PlatformJob, A], Awaitable[None]]], Declaration[PlatformJob, A]]:
    """Declare a job of the platform itself. One for a tenant is declared with `strata.tenancy.jobs.tenant_job`."""

    def declare(handler: Callable[[PlatformJob, A], Awaitable[None]]) -> Declaration[PlatformJob, A]:
        return Declaration(
            name, handler, scope=Scope.PLATFORM, queue=queue, retry=retry, timeout_s=timeout_s, schedule=schedule
        )

    return declare


class JobRegistry:
    """Every job a worker knows, collected from the lists that the domains export."""

    def __init__(self, *lists: Iterable[AnyDeclaration]) -> None:
        self._declarations: dict[str, AnyDeclaration] = {}
        for declaration in (each for declarations in lists for each in declarations):
            if declaration.name in self._declarations:
                message = f"Two jobs are called «{declaration.name}»; rename one."
                raise ConfigurationError(message)
            self._declarations[declaration.name] = declaration

    def heirs(self) -> dict[str, str]:
        """By a job's name, the job that is queued when it dies."""
        return {each.name: each.heir.name for each in self if each.heir is not None}

    def __iter__(self) -> Iterator[AnyDeclaration]:
        return iter(self._declarations.values())

    def __getitem__(self, name: str) -> AnyDeclaration:
        return self._declarations[name]


def _arguments_of(name: str, handler: Callable[[J, A], Awaitable[None]]) -> type[A]:
    """The type of the handler's second parameter: what the queue's JSON is decoded to."""
    hints = get_type_hints(handler)
    hints.pop("return", None)
    types = list(hints.values())
    if len(types) != 2 or not issubclass(types[1], msgspec.Struct):  # noqa: PLR2004 - the job and its arguments
        message = f"The handler of job «{name}» takes the job and a msgspec.Struct of arguments, both annotated."
        raise ConfigurationError(message)
    arguments: type[A] = types[1]
    return arguments


def _can_be_made_of_nothing(name: str, arguments: type[msgspec.Struct]) -> None:
    try:
        arguments()
    except TypeError:
        message = f"Job «{name}» has a schedule, which gives no arguments: every member needs a default."
        raise ConfigurationError(message) from None
