from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.platform.settings import HttpSettings
from strata.routing.host import HostKind, Hosts, InvalidHostError, ResolvedHost, normalised
from strata.tenancy.model import RESERVED_SLUGS

SETTINGS = HttpSettings(base_domain="example.com")
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@pytest.fixture
def hosts() -> Hosts:
    return Hosts(SETTINGS)


@pytest.mark.parametrize(
    ("header", "kind", "slug"),
    [
        ("acme.example.com", HostKind.TENANT, "acme"),
        ("ACME.Example.COM:8443", HostKind.TENANT, "acme"),
        ("acme.example.com.", HostKind.TENANT, "acme"),
        ("acme.example.com.:80", HostKind.TENANT, "acme"),
        ("acme.example.com:", HostKind.TENANT, "acme"),
        ("api.example.com", HostKind.API, None),
        ("console.example.com", HostKind.CONSOLE, None),
        ("example.com", HostKind.BASE, None),
        ("example.com.", HostKind.BASE, None),
        ("shop.acme.org", HostKind.CUSTOM, None),
        ("xn--bcher-kva.example", HostKind.CUSTOM, None),
        ("notexample.com", HostKind.CUSTOM, None),
        ("www.example.com", HostKind.NOBODY, None),
        ("a.acme.example.com", HostKind.NOBODY, None),
        ("api.acme.example.com", HostKind.NOBODY, None),
        ("xn--acme.example.com", HostKind.NOBODY, None),
        ("10.0.0.1", HostKind.NOBODY, None),
        ("localhost", HostKind.NOBODY, None),
    ],
)
def test_what_a_host_names(hosts: Hosts, header: str, kind: HostKind, slug: str | None) -> None:
    resolved = hosts.resolve([header.encode()])
    assert (resolved.kind, resolved.slug) == (kind, slug)
    assert resolved.name == header.lower().partition(":")[0].removesuffix(".")


@pytest.mark.parametrize(
    "header",
    [
        b"", b" ", b".", b"..", b"a..b", b".acme.example.com", b"acme.example.com..", b"acme example.com", b"acme\t.example.com",
        b"acme.example.com\r\nX: y", b"user@acme.example.com", b"user:pw@acme.example.com", b"http://acme.example.com",
        b"acme.example.com/", b"acme.example.com?x", b"acme.example.com#", b"acme_shop.example.com", b"-a.example.com",
        b"a-.example.com", b"*.example.com", b"acme%2eexample.com", b"acme.example.com\x00", "bücher.example".encode(),
        "acme。example.com".encode(), b"[::1]", b"[::1]:80", b"::1", b"a:b", b"a:1:2", b"a:0", b"a:65536", b"a:999999", b"a:-1",
        b"a:+80", b"a: 80", "a:\u0661".encode(), b"a" * 64, (b"a." * 127) + b"aa", b"a" * 5000, b"acme.example.com, evil.example.com",
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused(hosts: Hosts, header: bytes) -> None:
    with pytest.raises(InvalidHostError) as caught:
        hosts.resolve([header])
    assert caught.value.status == 400


@pytest.mark.parametrize("values", [[], [b"a.example.com", b"a.example.com"]])
def test_one_host_and_one_only(hosts: Hosts, values: list[bytes]) -> None:
    with pytest.raises(InvalidHostError):
        hosts.resolve(values)


def test_reserved_names_never_route(hosts: Hosts) -> None:
    kinds = {slug: hosts.resolve([f"{slug}.example.com".encode()]).kind for slug in RESERVED_SLUGS}
    assert set(kinds.values()) <= {HostKind.NOBODY, HostKind.API, HostKind.CONSOLE}
    assert kinds["admin"] is HostKind.NOBODY


@given(raw=st.binary(max_size=300))
def test_any_bytes_are_a_host_name_or_refused(raw: bytes) -> None:
    try:
        name = normalised(raw)
    except InvalidHostError:
        return
    assert 0 < len(name) <= 253
    assert set(name) <= set(string.ascii_lowercase + string.digits + "-.")
    assert normalised(name.encode()) == name


@given(label=LABELS, port=st.integers(1, 65535), dot=st.booleans(), data=st.data())
def test_spelling_makes_no_difference(label: str, port: int, dot: bool, data: st.DataObject) -> None:
    plain = f"{label}.example.com"
    spelt = "".join(data.draw(st.sampled_from((letter, letter.upper()))) for letter in plain)
    hosts = Hosts(SETTINGS)
    assert hosts.resolve([f"{spelt}{'.' if dot else ''}:{port}".encode()]) == hosts.resolve([plain.encode()])


def test_the_memory_of_hosts_is_bounded(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strata.routing.host._HOSTS_REMEMBERED", 10)
    for number in range(100):
        hosts.resolve([f"h{number}.example.com".encode()])
    assert len(hosts._read) <= 10
    assert hosts.resolve([b"acme.example.com"]) == ResolvedHost(HostKind.TENANT, "acme.example.com", "acme")


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        (("10.1.2.3", 1), True), (("::ffff:10.1.2.3", 1), True), (("192.0.2.7", 1), True), (("2001:db8::5", 1), True),
        (("10.2.0.1", 1), False), (("192.0.2.8", 1), False), (("proxy", 1), False), (("", 0), False), (None, False),
    ],
)  # fmt: skip
def test_which_peers_are_trusted(peer: tuple[str, int] | None, trusted: bool) -> None:
    hosts = Hosts(HttpSettings(trusted_proxies=("10.1.0.0/16", "192.0.2.7", "2001:db8::/32")))
    assert hosts.trusts(peer) is trusted
    assert hosts.trusts(peer) is trusted


def test_by_default_nobody_is_trusted(hosts: Hosts) -> None:
    assert not hosts.trusts(("127.0.0.1", 1))
