"""What a Host header names. Everything that is not plainly a host name is refused: guessing is how tenants get mixed up."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from strata.platform.errors import BadRequestError
from strata.platform.settings import HttpSettings
from strata.tenancy.model import RESERVED_SLUGS

_LONGEST_NAME = 253
_LONGEST_HEADER = _LONGEST_NAME + len(".:65535")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# One trailing dot is the root of the DNS. ASCII only: a name in another script comes as A-labels (xn--), as RFC 9110 wants it.
_HOST = re.compile(rf"({_LABEL}(?:\.{_LABEL})*)\.?(?::([0-9]{{0,5}}))?")
_HIGHEST_PORT = 65535
_HOSTS_REMEMBERED = 8192


class HostKind(StrEnum):
    API = "api"
    """api.<base>: the tenant is named by the token alone."""
    CONSOLE = "console"
    BASE = "base"
    """The base domain itself: no tenant."""
    TENANT = "tenant"
    CUSTOM = "custom"
    NOBODY = "nobody"
    """A well-formed name that no tenant can have: reserved, several labels deep, an address."""


class ResolvedHost(msgspec.Struct, frozen=True):
    kind: HostKind
    name: str
    """Normalised: lower case, without port and trailing dot."""
    slug: str | None = None


class InvalidHostError(BadRequestError):
    code = "invalid-host"
    title = "Host not understood"

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"The Host header is not acceptable: {why}. Send one host name, with a port at most.")


class Hosts:
    """Reads host names under one configuration, and remembers the ones it has read."""

    def __init__(self, settings: HttpSettings) -> None:
        self._base = settings.base_domain.lower().rstrip(".")
        self._suffix = f".{self._base}"
        self._labels = {settings.api_label: HostKind.API, settings.console_label: HostKind.CONSOLE}
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in settings.trusted_proxies]
        self._read: dict[bytes, ResolvedHost] = {}
        self._trust: dict[str, bool] = {}

    def resolve(self, values: Sequence[bytes]) -> ResolvedHost:
        """`values`: every Host header (or X-Forwarded-Host header) of the request, raw."""
        if len(values) != 1:
            raise InvalidHostError("it is missing" if not values else "there is more than one")
        known = self._read.get(values[0])
        if known is not None:
            return known
        resolved = self._classify(normalised(values[0]))
        if len(self._read) >= _HOSTS_REMEMBERED:
            self._read.clear()  # made-up names are cheap to send; forgetting all is cheaper than ordering them
        self._read[values[0]] = resolved
        return resolved

    def trusts(self, client: tuple[str, int] | None) -> bool:
        """Whether the peer (an ASGI `client`) is a proxy whose X-Forwarded-Host counts."""
        if not self._networks or client is None:
            return False
        address = client[0]
        known = self._trust.get(address)
        if known is None:
            known = self._in_networks(address)
            if len(self._trust) >= _HOSTS_REMEMBERED:
                self._trust.clear()
            self._trust[address] = known
        return known

    def _in_networks(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False  # a Unix socket, or a test's name for itself
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)

    def _classify(self, name: str) -> ResolvedHost:
        if name == self._base:
            return ResolvedHost(HostKind.BASE, name)
        if not name.endswith(self._suffix):
            # No top-level domain is all digits, so this is an IPv4 address.
            numeric = name.rpartition(".")[2].isdigit()
            return ResolvedHost(HostKind.NOBODY if numeric or "." not in name else HostKind.CUSTOM, name)
        label = name.removesuffix(self._suffix)
        if label in self._labels:
            return ResolvedHost(self._labels[label], name)
        if "." in label or "--" in label or label in RESERVED_SLUGS:
            return ResolvedHost(HostKind.NOBODY, name)
        return ResolvedHost(HostKind.TENANT, name, slug=label)


def normalised(raw: bytes) -> str:
    """The name in lower case, without port and without one trailing dot; InvalidHostError for anything else."""
    if len(raw) > _LONGEST_HEADER:
        why = "it is too long"
        raise InvalidHostError(why)
    if raw.startswith(b"["):
        why = "addresses in brackets name no tenant"
        raise InvalidHostError(why)
    try:
        text = raw.decode("ascii").lower()
    except UnicodeDecodeError:
        why = "names in other scripts must come in their ASCII form (xn--)"
        raise InvalidHostError(why) from None
    match = _HOST.fullmatch(text)
    if match is None or len(match[1]) > _LONGEST_NAME:
        why = "it is not a host name"
        raise InvalidHostError(why)
    port = match[2]
    if port and not 0 < int(port) <= _HIGHEST_PORT:
        why = "there is no such port"
        raise InvalidHostError(why)
    return match[1]
