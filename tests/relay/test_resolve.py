"""Lookups off the loop: bounded, abandoned at will, never in the way of process exit."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest

from iam_auth_proxy.relay.resolve import AddressInfo, ThreadResolver

FOUND: list[AddressInfo] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]


async def test_a_literal_comes_back_from_the_real_resolver() -> None:
    infos = await ThreadResolver()("127.0.0.1", 80)
    assert [info[4] for info in infos] == [("127.0.0.1", 80)]
    assert infos[0][1] == socket.SOCK_STREAM


async def test_errors_of_the_lookup_come_through() -> None:
    def lookup(host: str, port: int) -> Sequence[AddressInfo]:
        raise socket.gaierror(socket.EAI_NONAME, "no")

    with pytest.raises(socket.gaierror):
        await ThreadResolver(lookup)("app.test", 80)


async def test_a_name_that_cannot_be_encoded_is_no_name() -> None:
    def lookup(host: str, port: int) -> Sequence[AddressInfo]:
        raise UnicodeError("label too long")

    with pytest.raises(socket.gaierror):
        await ThreadResolver(lookup)("app.test", 80)


async def test_a_stuck_lookup_can_be_given_up_and_is_counted_until_it_ends() -> None:
    release = threading.Event()

    def lookup(host: str, port: int) -> Sequence[AddressInfo]:
        if host == "stuck.test":
            release.wait(10)
        return FOUND

    resolver = ThreadResolver(lookup, limit=2)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await resolver("stuck.test", 80)
        assert await resolver("app.test", 80) == FOUND  # the other of two
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await resolver("stuck.test", 80)
        with pytest.raises(socket.gaierror) as caught:
            await resolver("app.test", 80)
        assert caught.value.errno == socket.EAI_AGAIN
    finally:
        release.set()
    async with asyncio.timeout(5):
        while True:
            try:
                assert await resolver("app.test", 80) == FOUND
                break
            except socket.gaierror:
                await asyncio.sleep(0)


async def test_where_the_system_gives_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    resolver = ThreadResolver(limit=1)
    for _ in range(2):
        with pytest.raises(socket.gaierror, match="can't start new thread"):
            await resolver("app.test", 80)


def test_a_stuck_lookup_does_not_hold_up_process_exit() -> None:
    program = """
import asyncio, time
from iam_auth_proxy.relay.resolve import ThreadResolver
async def main():
    try:
        async with asyncio.timeout(0.05):
            await ThreadResolver(lambda host, port: time.sleep(60))("stuck.test", 80)
    except TimeoutError:
        print("given up")
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert (done.stdout, done.stderr) == ("given up\n", "")
