"""What can be checked without any server: Python, packages, settings, the key."""

from __future__ import annotations

import platform
import re
import secrets
import sys
from collections.abc import Iterator
from importlib import metadata

from strata.cli.doctor.report import Report
from strata.platform.keys.provider import key_port
from strata.platform.settings import KeyProvider, Settings

OLDEST_PYTHON = (3, 11)
_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^]]*])?(?:>=([0-9.]+))?$")


def check_python(report: Report) -> None:
    version = platform.python_version()
    if sys.version_info[:2] < OLDEST_PYTHON:
        report.failure("python", version, "Strata needs Python 3.11 or newer: install one and run make setup.")
    else:
        report.ok("python", f"{version} at {sys.executable}")


def check_packages(report: Report) -> None:
    wrong = list(_wrong_packages())
    if wrong:
        report.failure("packages", ", ".join(wrong), "Bring the environment up to date with make setup.")
    else:
        report.ok("packages", f"strata {metadata.version('strata')} and all it needs")


def _wrong_packages() -> Iterator[str]:
    for requirement in metadata.requires("strata") or ():
        match = _REQUIREMENT.match(requirement.replace(" ", ""))
        # One with a marker is for some machines only; the program that needs it says so when it is missing.
        if match is None:
            continue
        name, oldest = match.groups()
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield f"{name} is missing"
            continue
        if oldest and _numbers(installed) < _numbers(oldest):
            yield f"{name} {installed} is older than {oldest}"


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:4]]


async def check_key(report: Report, settings: Settings) -> None:
    port = key_port(settings)
    secret, purpose = secrets.token_bytes(16), "doctor"
    if await port.unseal(await port.seal(secret, purpose), purpose) != secret:
        report.failure("key", "what was sealed does not open", "Check STRATA_KEYS__PROVIDER and the key behind it.")
    elif settings.keys.provider is KeyProvider.LOCAL:
        report.ok("key", f"local key {settings.local_key_file}: back it up, nothing else opens what it sealed")
    else:
        report.ok("key", f"{settings.keys.provider} seals and unseals")
