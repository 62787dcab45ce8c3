"""Peers that stall, lie, ask without end, and leave where it hurts most."""

from __future__ import annotations

import asyncio

import pytest

from iam_auth_proxy.relay.exchange import Reply
from iam_auth_proxy.relay.limits import Limits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
MIB = 1024 * 1024
SOON = 0.15


def get(app, method: bytes = b"GET", lines: bytes = b"") -> bytes:
    return b"%b %b/ HTTP/1.1\r\nHost: app.test\r\n%b\r\n" % (method, app.url.encode(), lines)


async def later(value):
    await asyncio.sleep(0)
    return value


async def read_head(reader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


# -- answers that are replaced ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n"], ids=["CL", "TE"]
)
async def test_an_unwanted_answer_that_never_ends_holds_no_connection(rig, framing):
    async def serve(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 401 No\r\n" + framing + b"\r\n")
        await reader.read()

    await rig.start(Limits(idle_body=SOON))
    app = await rig.app(serve)
    rig.steering.on_after = lambda *_: later(Reply(403, [], b"no"))
    peer = await rig.peer()
    peer.send(get(app))
    assert (await peer.answer())[1] == b"no"
    await rig.until(lambda: rig.relay.origins == 0)


# -- memory ----------------------------------------------------------------------------------------


async def test_a_client_that_asks_and_asks_and_never_reads(rig):
    body = b"x" * 100_000
    await rig.start()
    app = await rig.answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    peer = await rig.peer()
    peer.writer.transport.pause_reading()

    async def ask():
        while True:
            peer.send(get(app) * 1000)
            await peer.writer.drain()

    asking = asyncio.create_task(ask())
    (client,) = await clients(rig)
    await rig.until(lambda: client.write_paused and not client._transport.is_reading())
    await asyncio.sleep(0.2)
    assert len(client._buffer) <= MIB
    asking.cancel()
    # Whoever reads in the end gets what it asked for.
    passed_on = rig.relay.counters.passed_on
    peer.writer.transport.resume_reading()
    for _ in range(passed_on + 20):
        assert (await peer.answer())[1] == body


async def clients(rig):
    await rig.until(lambda: rig.relay.clients > 0)
    return rig.relay._shared.clients
