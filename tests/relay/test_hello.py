"""ClientHellos, those of real clients and those that nobody should send."""

from __future__ import annotations

import base64
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iam_auth_proxy.relay.hello import BadHello, Hello, HelloReader, NotTls
from tests.support.hellos import (
    block,
    client_hello,
    hello_of,
    protocols,
    records,
    server_name,
    versions,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "hellos.json"
CLIENTS: list[dict[str, Any]] = json.loads(VECTORS.read_text())["clients"]
NAMED = server_name(b"app.test")


def read(raw: bytes) -> Hello:
    hello = HelloReader().feed(raw)
    assert hello is not None
    return hello


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client["name"])
def test_what_real_clients_say(client: dict[str, Any]) -> None:
    found = [read(base64.b64decode(raw)) for raw in client["hellos"]]
    for hello in found:
        assert hello.server_name == client["server_name"]
        assert [name.decode() for name in hello.protocols] == client["protocols"]
        assert hello.version == client["version"]
    assert len({hello.fingerprint for hello in found}) == 1, "one client, one fingerprint"


def test_clients_are_told_apart() -> None:
    prints = {read(base64.b64decode(client["hellos"][0])).fingerprint for client in CLIENTS}
    assert len(prints) == len(CLIENTS)


def test_host_session_and_chance_do_not_count() -> None:
    context = ssl.create_default_context()
    first = read(hello_of(context, "app.test"))
    assert read(hello_of(context, "other.test")).fingerprint == first.fingerprint
    plain = client_hello(NAMED, protocols(b"h2"), (21, bytes(7)), (41, b"psk"), random=b"r" * 32)
    greased = client_hello(
        (0x2A2A, b""),
        protocols(b"\x1a\x1a", b"h2"),
        server_name(b"b.test"),
        (35, b"ticket"),
        ciphers=(0x0A0A, 0x1302, 0x1301, 0xC02B),
        session=b"s" * 32,
    )
    assert read(records(plain)).fingerprint == read(records(greased)).fingerprint
    other = client_hello(NAMED, protocols(b"h2"), (65000, b""))
    assert read(records(other)).fingerprint != read(records(plain)).fingerprint


def test_a_hello_without_extensions() -> None:
    hello = read(records(client_hello()))
    assert (hello.server_name, hello.protocols, hello.version) == ("", (), 0x0303)
    assert hello.speaks_http11


def test_only_grease_for_versions() -> None:
    assert read(records(client_hello(versions(0x7A7A)))).version == 0


@pytest.mark.parametrize(
    ("extension", "why"),
    [
        ((0, b""), "malformed"),
        ((0, block(2, b"\x00" + block(2, b"a.test") + b"\x00" + block(2, b"b.test"))), "SNI"),
        ((0, block(2, b"\x01" + block(2, b"a.test"))), "SNI"),
        ((0, block(2, b"\x00" + block(2, b""))), "SNI"),
        ((0, block(2, b"\x00" + block(2, "\xe4.test".encode()))), "SNI"),
        ((0, block(2, b"\x00" + block(2, b"a.test\x00.evil.test"))), "SNI"),
        ((0, block(2, b"\x00" + block(2, b"a.test")) + b"x"), "malformed"),
        ((16, block(2, block(1, b"h2")[:-1])), "malformed"),
        ((43, block(1, b"\x03")), "malformed"),
        ((10, block(2, b"\x00\x1d") + b"\x00"), "malformed"),
    ],
)
def test_extensions_that_are_malformed(extension: tuple[int, bytes], why: str) -> None:
    with pytest.raises(BadHello, match=why):
        read(records(client_hello(extension)))


@pytest.mark.parametrize("cut", sorted({*range(1, 60)} - {26}))  # 26: no extensions at all
def test_a_hello_that_is_cut_within(cut: int) -> None:
    """The lengths outside hold, those inside do not."""
    whole = client_hello(NAMED, versions(0x0304))
    body = whole[4:-cut]
    with pytest.raises(BadHello):
        read(records(b"\x01" + block(3, body)))


@given(data=st.binary(max_size=200), at=st.integers(0, 200))
@settings(max_examples=200)
def test_anything_is_read_or_refused(data: bytes, at: int) -> None:
    whole = records(client_hello(NAMED, protocols(b"h2", b"http/1.1"), versions(0x0304)))
    for raw in (data, whole[:at] + data, whole[:at] + data + whole[at + len(data) :]):
        reader = HelloReader()
        try:
            reader.feed(raw)
        except (BadHello, NotTls):
            continue
        assert reader.raw == raw


@given(size=st.integers(1, 300), step=st.integers(1, 300))
@settings(max_examples=50)
def test_pieces_and_records_make_no_difference(size: int, step: int) -> None:
    message = client_hello(NAMED, protocols(b"h2", b"http/1.1"), versions(0x0304))
    raw, reader, found = records(message, size), HelloReader(), None
    for at in range(0, len(raw), step):
        assert found is None
        found = reader.feed(raw[at : at + step])
    assert found == read(records(message))
    assert bytes(reader.raw) == raw
