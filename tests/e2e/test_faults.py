"""Each side of the proxy fails in turn: the right page or a clean end, no leak, and on it goes.

The proxy is a process of its own with the limits it comes with. What it has open is counted before
and after: clients, origins and tasks by its own metrics, descriptors by the kernel.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from iam_auth_proxy.local_aws import Keys
from tests.e2e.conftest import APP, USER_ARN, Stack, curl
from tests.support.processes import Proxy, base_env
from tests.support.sockets import vanish
from tests.support.upstreams import Socks5, listening

pytestmark = pytest.mark.e2e

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """One proxy for all: what one test breaks, the next would feel."""
    home = str(tmp_path_factory.mktemp("home"))
    running = Proxy("--allow-target", "127.0.0.1", env=base_env(HOME=home, XDG_CONFIG_HOME=home))
    yield running
    assert running.stop() == 0, running.output
    assert "Traceback" not in running.output
    assert not [line for line in running.lines if '"level":"error"' in line]


# -- what is open ----------------------------------------------------------------------------------


async def metrics(proxy: Proxy) -> dict[str, int]:
    """The samples of /metrics; labels are part of the name."""
    reader, writer = await connect(proxy)
    writer.write(
        f"GET /metrics HTTP/1.1\r\nHost: {proxy.address}\r\nConnection: close\r\n\r\n".encode()
    )
    text = (await asyncio.wait_for(reader.read(-1), 10)).decode()
    writer.close()
    found = re.findall(r"^iam_auth_proxy_(\S+) ([0-9]+)$", text, re.MULTILINE)
    assert found, text
    return {name: int(value) for name, value in found}


async def held(proxy: Proxy) -> dict[str, int]:
    counts = await metrics(proxy)
    gauges = ("client_connections", "origin_connections", "signins_in_progress", "tasks")
    descriptors = len(os.listdir(f"/proc/{proxy.process.pid}/fd"))
    return {name: counts[name] for name in gauges} | {"descriptors": descriptors}


@dataclass
class Watch:
    """What moved while a fault was made."""

    moved: dict[str, int] = field(default_factory=dict)


@asynccontextmanager
async def nothing_leaked(proxy: Proxy) -> AsyncIterator[Watch]:
    """What is open afterwards is what was open before, and the next request works."""
    await held(proxy)  # its own pages' connection is pooled from now on
    before, counted = await held(proxy), await metrics(proxy)
    watch = Watch()
    yield watch
    await holds_no_more(proxy, before)
    watch.moved = await moved_since(proxy, counted)
    async with listening(close_after(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")) as port:
        head, body = await ask(proxy, port)
    assert (head[:15], body) == (b"HTTP/1.1 200 OK", b"fine")


async def holds_no_more(proxy: Proxy, before: dict[str, int]) -> None:
    after = await held(proxy)
    for _ in range(500):
        if after == before:
            break
        await asyncio.sleep(0.01)  # the kernel tells the proxy of a close in its own time
        after = await held(proxy)
    assert after == before


async def moved_since(proxy: Proxy, counted: dict[str, int]) -> dict[str, int]:
    now = await metrics(proxy)
    return {name: value - counted.get(name, 0) for name, value in now.items()}


def endings(moved: dict[str, int]) -> dict[str, int]:
    """How exchanges ended that did not end well, each counted once."""
    kinds = ("aborted_", "abandoned_", "expired_", "failed_", "refused_", "retried_")
    return {name: count for name, count in moved.items() if count and name.startswith(kinds)}


# -- both sides, by hand ---------------------------------------------------------------------------


async def connect(proxy: Proxy) -> Streams:
    return await asyncio.open_connection("127.0.0.1", proxy.port, limit=2**20)


def request(port: int, method: str = "GET", *fields: str) -> bytes:
    lines = [f"{method} http://127.0.0.1:{port}/x HTTP/1.1", f"Host: 127.0.0.1:{port}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def ask(proxy: Proxy, port: int) -> tuple[bytes, bytes]:
    """A whole answer by its Content-Length."""
    reader, writer = await connect(proxy)
    writer.write(request(port))
    try:
        return await answer(reader)
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    match = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
    assert match is not None, head
    return head, await asyncio.wait_for(reader.readexactly(int(match[1])), 10)


async def to_the_end(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """What came, and whether the end was a reset."""
    got = bytearray()
    try:
        while data := await asyncio.wait_for(reader.read(65536), 10):
            got += data
    except ConnectionResetError:
        return bytes(got), True
    return bytes(got), False


def close_after(data: bytes, *, reset: bool = False) -> Serve:
    """An origin that answers the first request with these bytes, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()
        if reset:
            writer.transport.abort()

    return serve


# -- the origin dies -------------------------------------------------------------------------------

COUNTED = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n"
MID_CHUNK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n0123456789"


@pytest.mark.parametrize("said", [COUNTED, CHUNKED, MID_CHUNK], ids=["counted", "chunked", "chunk"])
async def test_an_answer_that_is_cut_is_never_whole(proxy: Proxy, said: bytes) -> None:
    async with nothing_leaked(proxy) as watch, listening(close_after(said)) as port:
        reader, writer = await connect(proxy)
        writer.write(request(port))
        got, was_reset = await to_the_end(reader)
        writer.close()
        assert was_reset, "a client that reads until the close would take it for the end"
        assert not got.endswith(b"0\r\n\r\n")
        assert len(got.partition(b"\r\n\r\n")[2]) < 100
    assert endings(watch.moved) == {"aborted_total": 1}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "connection_terminated"),
        (b"HTTP/1.1 200", "http_response_incomplete"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", "http_response_incomplete"),
    ],
)
async def test_an_origin_that_dies_before_its_head(proxy: Proxy, said: bytes, reason: str) -> None:
    async with nothing_leaked(proxy) as watch, listening(close_after(said)) as port:
        head, body = await ask(proxy, port)
        assert head.startswith(b"HTTP/1.1 502 ")
        assert f"Proxy-Status: iam-auth-proxy; error={reason}".encode() in head
        assert body.startswith(b"iam-auth-proxy: ")
    assert endings(watch.moved) == {f'failed_total{{reason="{reason}"}}': 1}


async def test_an_origin_that_does_not_speak_http(proxy: Proxy) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9\r\nInvalid SSH identification string.\r\n\r\n")
        await reader.read(-1)

    async with nothing_leaked(proxy) as watch, listening(serve) as port:
        head, _ = await ask(proxy, port)
        assert head.startswith(b"HTTP/1.1 502 ")
        assert b"error=http_protocol_error" in head
    assert endings(watch.moved) == {'failed_total{reason="http_protocol_error"}': 1}


async def test_an_origin_that_dies_between_two_requests(proxy: Proxy) -> None:
    """The pooled connection is found closed, and the request is made anew."""
    writers: list[asyncio.StreamWriter] = []
    closing = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        last = b"Connection: close\r\n" if len(writers) > 1 else b""
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + last + b"Content-Length: 1\r\n\r\n1")
        if not last:  # dies with the second request in its hands
            await reader.readuntil(b"\r\n\r\n")
            closing.set()

    async with nothing_leaked(proxy) as watch, listening(serve) as port:
        reader, writer = await connect(proxy)
        for _ in range(2):
            writer.write(request(port))
            head, body = await answer(reader)
            assert (head[:15], body) == (b"HTTP/1.1 200 OK", b"1")
        writer.close()
        assert closing.is_set()
    assert len(writers) == 2
    assert endings(watch.moved) == {"retried_total": 1}


async def test_a_post_is_not_sent_twice(proxy: Proxy) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        seen.append(await reader.readuntil(b"\r\n\r\n"))

    async with nothing_leaked(proxy) as watch, listening(serve) as port:
        reader, writer = await connect(proxy)
        writer.write(request(port))
        await answer(reader)
        writer.write(request(port, "POST", "Content-Length: 0"))
        head, _ = await answer(reader)
        writer.close()
        assert head.startswith(b"HTTP/1.1 502 ")
    assert len(seen) == 1
    assert endings(watch.moved) == {'failed_total{reason="connection_terminated"}': 1}


# -- the tunnel dies -------------------------------------------------------------------------------


async def test_a_tunnel_that_dies_and_comes_back(tmp_path: Path) -> None:
    half = asyncio.Event()

    async def download(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
        await half.wait()

    async with listening(download) as port:
        tunnel = Socks5(names={"app.internal": ("127.0.0.1", port)})
        await tunnel.__aenter__()
        flags = ("--socks-proxy", f"127.0.0.1:{tunnel.port}")
        proxy = await asyncio.to_thread(Proxy, *flags, env=base_env(HOME=str(tmp_path)))
        try:
            get = b"GET http://app.internal/ HTTP/1.1\r\nHost: app.internal\r\n\r\n"
            await held(proxy)
            before, counted = await held(proxy), await metrics(proxy)
            reader, writer = await connect(proxy)
            writer.write(get)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            await tunnel.__aexit__(None, None, None)
            _, was_reset = await to_the_end(reader)
            assert was_reset
            writer.close()

            reader, writer = await connect(proxy)
            writer.write(get)
            head, body = await answer(reader)
            assert head.startswith(b"HTTP/1.1 502 ")
            assert b"The tunnel is down" in body

            names = {"app.internal": ("127.0.0.1", port)}
            async with Socks5(names=names, port=tunnel.port):
                writer.write(get)
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
                assert head.startswith(b"HTTP/1.1 200 "), "without a restart"
                vanish(writer)
                await holds_no_more(proxy, before)
            assert endings(await moved_since(proxy, counted)) == {
                "aborted_total": 1,
                'failed_total{reason="connection_refused"}': 1,
                "abandoned_total": 1,
            }
        finally:
            assert await asyncio.to_thread(proxy.stop) == 0
            assert "Traceback" not in proxy.output


# -- the client dies, dawdles, or never reads ------------------------------------------------------


async def test_a_client_that_vanishes_during_its_upload(proxy: Proxy) -> None:
    begun = asyncio.Event()
    ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        got = bytearray()
        try:
            while data := await reader.read(65536):
                got += data
        except ConnectionResetError:
            pass  # as good an end as the other
        ended.set_result(bytes(got))

    async with nothing_leaked(proxy) as watch, listening(serve) as port:
        _, writer = await connect(proxy)
        writer.write(request(port, "POST", "Content-Length: 1000") + b"x" * 10)
        await writer.drain()
        # A client that is gone before it is accepted is nobody's: no user owns its end.
        await asyncio.wait_for(begun.wait(), 10)
        vanish(writer)
        got = await asyncio.wait_for(ended, 10)
        assert len(got) <= 10, "the origin sees that it was not the whole"
    assert endings(watch.moved) == {"abandoned_total": 1}


async def test_a_client_that_vanishes_during_its_download(proxy: Proxy) -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        finally:
            ended.set()

    async with nothing_leaked(proxy) as watch, listening(serve) as port:
        reader, writer = await connect(proxy)
        writer.write(request(port))
        await reader.readexactly(1000)
        vanish(writer)
        await asyncio.wait_for(ended.wait(), 10)
    assert endings(watch.moved) == {"abandoned_total": 1}


async def test_a_client_that_never_reads(proxy: Proxy) -> None:
    """The origin is held back: nothing is piled up for somebody who does not take it."""
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    async with nothing_leaked(proxy) as watch, listening(serve) as port:
        before = resident(proxy)
        _, writer = await connect(proxy)
        writer.transport.pause_reading()
        writer.write(request(port))
        last = -1
        while last != sent or not sent:  # until it stands still
            last = sent
            await asyncio.sleep(0.2)
        assert sent < 64 * 2**20, "kernel buffers aside, nobody took it"
        assert resident(proxy) - before < 8 * 2**20
        assert (await metrics(proxy))["client_connections"] == 2, "others are served meanwhile"
        vanish(writer)
    assert endings(watch.moved) == {"abandoned_total": 1}


def resident(proxy: Proxy) -> int:
    """Bytes of memory."""
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    match = re.search(r"^VmRSS:\s+([0-9]+) kB$", status, re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


async def test_a_byte_a_second(proxy: Proxy) -> None:
    """The deadline is for the head as a whole; each byte is no new lease. 10 s by default."""
    loop = asyncio.get_running_loop()
    async with nothing_leaked(proxy) as watch:
        reader, writer = await connect(proxy)
        begun = loop.time()
        got = b""
        for byte in request(80):
            writer.write(bytes([byte]))
            with suppress(TimeoutError):
                got = await asyncio.wait_for(reader.read(65536), 1)
                break
        assert got.startswith(b"HTTP/1.1 408 "), got
        assert 9 < loop.time() - begun < 14
        assert b"Connection: close" in got
        writer.close()
    assert endings(watch.moved) == {"expired_total": 1, 'refused_total{reason="408"}': 1}


async def test_one_connection_too_many(proxy: Proxy) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        async with nothing_leaked(proxy) as watch:
            crowd = [await connect(proxy) for _ in range(1000)]
            reader, writer = await connect(proxy)
            got = await asyncio.wait_for(reader.read(-1), 10)
            writer.close()
            assert got.startswith(b"HTTP/1.1 503 ")
            assert b"Too many connections are open." in got
            crowd.pop()[1].close()
            async with asyncio.timeout(10):
                while (await held_or_none(proxy)) is None:  # noqa: ASYNC110  # see nothing_leaked
                    await asyncio.sleep(0.01)
            for _, waiting in crowd:
                waiting.close()
        assert watch.moved["over_limit_total"] >= 1
        assert watch.moved["accepted_total"] >= 1001
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def held_or_none(proxy: Proxy) -> dict[str, int] | None:
    """None while the proxy still answers 503."""
    try:
        return await held(proxy)
    except AssertionError:
        return None


# -- AWS fails -------------------------------------------------------------------------------------


def statuses(shown: str) -> list[str]:
    return re.findall(r"^HTTP/1\.1 (\d+)", shown, re.MULTILINE)


@pytest.fixture
def faulty(stack: Stack) -> Iterator[Stack]:
    yield stack
    stack.aws.clear_faults()
    stack.aws.skew(0)


# A page needs a session of its own each time; a program's is held. One that asks for the same URL
# again and again is in a circle, so each has its own.
PAGE = ("-H", "Upgrade-Insecure-Requests: 1")
NUMBERS = itertools.count()


@asynccontextmanager
async def signed_in(stack: Stack) -> AsyncIterator[Proxy]:
    """A proxy that has signed in once: what it keeps from then on, it has open already."""
    with stack.proxy("--allow-target", "127.0.0.1") as proxy:
        await signs_in(proxy)
        yield proxy


async def load(proxy: Proxy) -> str:
    url = f"{APP}/check?{next(NUMBERS)}"
    return await asyncio.to_thread(curl, proxy, *PAGE, "-D", "-", url)


async def signs_in(proxy: Proxy) -> None:
    shown = await load(proxy)
    assert f"ok {USER_ARN}" in shown, shown


def sign_ins(moved: dict[str, int]) -> dict[str, int]:
    """What became of them, each counted once."""
    return {name: count for name, count in moved.items() if count and name.startswith("signins_")}


async def test_aws_is_slow(faulty: Stack) -> None:
    fault = faulty.aws.fault("*", "*", delay=1.0, times=3)
    async with signed_in(faulty) as proxy:
        assert fault.hits == 3
        fault = faulty.aws.fault("*", "*", delay=1.0, times=3)
        async with nothing_leaked(proxy) as watch:
            await signs_in(proxy)
            assert fault.hits == 3
        assert sign_ins(watch.moved) == {"signins_completed_total": 1}


async def test_aws_is_busy(faulty: Stack) -> None:
    async with signed_in(faulty) as proxy, nothing_leaked(proxy) as watch:
        fault = faulty.aws.fault("kms", "Encrypt", code="ThrottlingException", times=1)
        await signs_in(proxy)  # the first refusal is not the last word
        assert fault.hits == 1
        faulty.aws.fault("kms", "Encrypt", code="ThrottlingException", times=None)
        shown = await load(proxy)
        assert statuses(shown) == ["503"]
        assert "Retry-After: 5" in shown
        assert "[aws-unavailable]" in shown
        faulty.aws.clear_faults()
        await signs_in(proxy)
    assert sign_ins(watch.moved) == {
        "signins_completed_total": 2,
        "signins_unavailable_total": 1,
    }


async def test_aws_is_down(faulty: Stack) -> None:
    async with signed_in(faulty) as proxy, nothing_leaked(proxy) as watch:
        faulty.aws.fault("*", "*", drop=True, times=None)
        shown = await load(proxy)
        assert statuses(shown) == ["503"]
        assert "Check the network" in shown
        faulty.aws.clear_faults()
        await signs_in(proxy)
    assert sign_ins(watch.moved) == {
        "signins_completed_total": 1,
        "signins_unavailable_total": 1,
    }


async def test_the_clock_is_wrong(faulty: Stack) -> None:
    async with signed_in(faulty) as proxy, nothing_leaked(proxy) as watch:
        faulty.aws.skew(-30 * 60)
        shown = await load(proxy)
        assert statuses(shown) == ["403"]
        assert "It is 30 min ahead of AWS's clock." in shown
        assert "timedatectl" in shown
        faulty.aws.skew(0)
        await signs_in(proxy)
    assert sign_ins(watch.moved) == {"signins_completed_total": 1, "signins_refused_total": 1}


async def test_the_app_does_not_take_the_proof(faulty: Stack) -> None:
    """Its role may not decrypt: AWS has not refused the person, the app has."""
    async with signed_in(faulty) as proxy, nothing_leaked(proxy) as watch:
        faulty.aws.fault("kms", "Decrypt", code="AccessDeniedException", times=None)
        shown = await load(proxy)
        assert statuses(shown) == ["302", "502"]
        assert "[misconfigured]" in shown
        faulty.aws.clear_faults()
        await signs_in(proxy)
    assert sign_ins(watch.moved) == {"signins_completed_total": 1, "signins_rejected_total": 1}


async def test_nobody_is_logged_in_and_then_somebody_is(faulty: Stack, tmp_path: Path) -> None:
    """The page names the command; once that was run, the next request works."""
    credentials = tmp_path / "credentials"
    credentials.write_text("")
    nobody = Keys("", "")
    env = faulty.env(nobody, AWS_SHARED_CREDENTIALS_FILE=str(credentials))
    with faulty.proxy("--allow-target", "127.0.0.1", env=env) as proxy:
        await load(proxy)
        async with nothing_leaked(proxy) as watch:
            shown = await load(proxy)
            assert statuses(shown) == ["403"]
            assert "[login-needed]" in shown
        assert sign_ins(watch.moved) == {"signins_refused_total": 1}
        counted = await metrics(proxy)
        lines = [f"{name} = {value}" for name, value in faulty.ready.user.boto3.items()]
        credentials.write_text("\n".join(["[default]", *lines, ""]))
        await signs_in(proxy)
        assert sign_ins(await moved_since(proxy, counted)) == {"signins_completed_total": 1}
