"""The answer to CONNECT, read to the byte however it comes."""

from __future__ import annotations

import asyncio
import itertools
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iam_auth_proxy.relay.http_connect import http_connect, parse_connect_answer
from iam_auth_proxy.relay.via import Via

VIA = Via("http", "proxy.test", 3128)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 200 Connection established\r\n\r\n", 200),
        (b"HTTP/1.0 200\r\n\r\n", 200),
        (b"HTTP/1.1 407 \r\nProxy-Authenticate: Basic\r\n\r\n", 407),
        (b"HTTP/1.1 204 No\n\n", 204),
    ],
)
def test_reads(head: bytes, status: int) -> None:
    assert parse_connect_answer(head) == status


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\r\n\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b" HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 O\rK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
    ],
)
def test_refuses_what_is_not_http(head: bytes) -> None:
    with pytest.raises(ValueError, match="not HTTP/1"):
        parse_connect_answer(head)


@given(st.binary(max_size=60) | st.from_regex(rb"HTTP/1\.[01] .{0,20}\r?\n\r?\n"))
def test_any_bytes_are_a_status_or_refused(head: bytes) -> None:
    try:
        status = parse_connect_answer(head)
    except ValueError:
        return
    assert 100 <= status <= 999


@settings(max_examples=50, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 60), max_size=8),
    newline=st.sampled_from([b"\r\n", b"\n"]),
    early=st.sampled_from([b"", b"\n", b"\r\n\r\n", b"SSH-2.0-early"]),
)
def test_wherever_it_is_cut_the_tunnel_keeps_its_bytes(
    cuts: list[int], newline: bytes, early: bytes
) -> None:
    answer = newline.join([b"HTTP/1.1 200 OK", b"Via: x", b"", b""])
    sent = answer + early
    at = [0, *sorted({min(cut, len(sent)) for cut in cuts}), len(sent)]

    async def run() -> bytes:
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            asking = asyncio.ensure_future(http_connect(near, "app.test:80", VIA))
            for start, end in itertools.pairwise(at):
                far.sendall(sent[start:end])
                await asyncio.sleep(0)
            assert await asking == 200
            far.shutdown(socket.SHUT_WR)
            return near.recv(100)

    assert asyncio.run(run()) == early
