"""What composition lends to jobs, found by type: a job is declared in a module, where nothing is wired yet."""

from __future__ import annotations

from typing import TypeVar

from strata.platform.errors import ConfigurationError

T = TypeVar("T")


class Services:
    def __init__(self, *services: object) -> None:
        self._services = {type(service): service for service in services}

    def get(self, kind: type[T]) -> T:
        service = self._services.get(kind)
        if not isinstance(service, kind):
            message = f"No {kind.__name__} is lent to jobs: strata/worker.py says what is."
            raise ConfigurationError(message)
        return service
