"""What a declaration refuses, and how long a job waits between failures."""

from __future__ import annotations

from datetime import time
from pathlib import Path

import msgspec
import procrastinate
import pytest

from strata.platform.errors import ConfigurationError
from strata.platform.jobs.declaration import JobRegistry, NoArguments, PlatformJob, Retry, platform_job
from strata.platform.jobs.schedules import Daily
from strata.platform.jobs.services import Services
from strata.worker import all_jobs

ROOT = Path(__file__).parents[3]


class Named(msgspec.Struct, frozen=True):
    name: str


async def handler(job: PlatformJob, arguments: Named) -> None: ...


def test_arguments_are_those_of_the_handler() -> None:
    assert platform_job("tests.named")(handler).arguments is Named


def test_a_handler_without_annotated_arguments_is_refused() -> None:
    async def bare(job: PlatformJob) -> None: ...

    with pytest.raises(ConfigurationError, match=r"takes the job and a msgspec\.Struct"):
        platform_job("tests.bare")(bare)  # type: ignore[arg-type]


def test_a_schedule_gives_no_arguments() -> None:
    with pytest.raises(ConfigurationError, match="needs a default"):
        platform_job("tests.named", schedule=Daily(time(3)))(handler)


def test_two_jobs_of_one_name_are_refused() -> None:
    jobs = (platform_job("tests.named")(handler), platform_job("tests.named")(handler))
    with pytest.raises(ConfigurationError, match="Two jobs are called"):
        JobRegistry(jobs)


def test_strata_s_own_jobs_have_names_that_say_whose_they_are() -> None:
    names = [each.name for each in JobRegistry(all_jobs())]
    assert all("." in name and len(name) <= 60 for name in names)


def test_what_is_queued_for_the_dead_is_run_by_somebody() -> None:
    registry = JobRegistry(all_jobs())
    assert registry.heirs()
    assert set(registry.heirs().values()) <= {each.name for each in registry}


def test_delays_double_up_to_the_longest() -> None:
    retry = Retry(first_delay_s=1.0, longest_delay_s=10.0)
    for failures, expected in ((1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (500, 10.0)):
        assert 0.8 * expected <= retry.delay_s(failures) <= 1.2 * expected


def test_what_is_not_lent_is_named() -> None:
    assert Services("lent").get(str) == "lent"
    with pytest.raises(ConfigurationError, match="No int is lent"):
        Services("lent").get(int)


def test_the_catalog_s_copy_of_procrastinate_s_schema_is_the_installed_one() -> None:
    """When this fails, a new version brought a new schema: add a catalog revision with its migrations."""
    ours = ROOT / "strata/migrations/catalog/sql/0002_procrastinate.sql"
    theirs = Path(procrastinate.__file__).parent / "sql" / "schema.sql"
    assert ours.read_text(encoding="utf-8") == theirs.read_text(encoding="utf-8")


def test_no_arguments_take_none() -> None:
    assert msgspec.to_builtins(NoArguments()) == {}
