"""Peers that leave, at every byte and at every step: nothing cut is whole, nothing stays behind."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from iam_auth_proxy.relay.limits import Limits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
SOON = 0.15


def get(app, method: bytes = b"GET", lines: bytes = b"") -> bytes:
    return b"%b %b/ HTTP/1.1\r\nHost: app.test\r\n%b\r\n" % (method, app.url.encode(), lines)


async def read_head(reader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


# -- cut at every byte -----------------------------------------------------------------------------

ANSWERS = {
    "counted": OK,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: 1\r\n\r\n",
    "hints": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK,
    "close": b"HTTP/1.1 200 OK\r\n\r\nhello",
}
UPLOADS = {
    "counted": b"Content-Length: 5\r\n\r\nhello",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n3;x\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: 1\r\n\r\n",
}


@pytest.mark.parametrize("ending", ["FIN", "RST"])
@pytest.mark.parametrize("framing", ANSWERS)
async def test_an_answer_cut_anywhere_is_never_whole(rig, framing, ending):
    answer = ANSWERS[framing]
    cut = len(answer)

    async def serve(reader, writer):
        while True:
            await read_head(reader)
            writer.write(answer[:cut])
            if cut < len(answer) or framing == "close":
                await asyncio.sleep(0)
                end(writer, ending if cut < len(answer) else "FIN")
                return

    await rig.start()
    app = await rig.app(serve)
    for cut in range(len(answer) + 1):
        peer = await rig.peer()
        peer.send(get(app, lines=b"Connection: close\r\n"))
        try:
            got = await peer.rest()
        except ConnectionResetError:
            got = b""  # cut, and it shows
        whole = got.rpartition(b"HTTP/1.1 200 OK")[2]
        if framing == "close" and ending == "FIN" and cut >= len(answer) - 5:
            assert whole.endswith(b"\r\n0\r\n\r\n")  # nobody can tell
        elif cut == len(answer):
            assert whole.endswith(b"hello" if framing in ("counted", "hints") else b"\r\n\r\n")
        else:
            assert not whole or b"HTTP/1.1 502" in got, (cut, got)
        await rig.until(lambda: rig.relay.clients == 0 and rig.relay._pool.busy == 0)
    await rig.until(lambda: not rig.relay._shared.tasks)


def end(writer, ending):
    if ending == "RST":
        reset(writer)
    else:
        writer.close()


def reset(writer):
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


@pytest.mark.parametrize("ending", ["FIN", "RST"])
@pytest.mark.parametrize("framing", UPLOADS)
async def test_a_request_cut_anywhere_leaves_nothing_behind(rig, framing, ending):
    async def serve(reader, writer):
        while True:
            head = await read_head(reader)
            if b"chunked" in head:
                await reader.readuntil(b"\r\n\r\n")
            elif b"POST" in head:
                await reader.readexactly(5)
            whole.append(head)
            writer.write(OK)

    whole: list[bytes] = []
    await rig.start()
    app = await rig.app(serve)
    request = b"POST %b/ HTTP/1.1\r\nHost: a\r\n" % app.url.encode() + UPLOADS[framing]
    for cut in range(len(request)):
        peer = await rig.peer()
        peer.send(request[:cut])
        if cut % 3:
            await asyncio.sleep(0.001)
        end(peer.writer, ending)
        await rig.until(lambda c=cut: rig.relay.counters.accepted == c + 1)
        await rig.until(lambda: rig.relay.clients == 0 and rig.relay._pool.busy == 0)
        assert whole == []
    begun = len(UPLOADS[framing].partition(b"\r\n\r\n")[2])
    assert rig.relay.counters.abandoned == begun == rig.relay.counters.requests
    peer = await rig.peer()
    peer.send(request)
    assert (await peer.answer())[1] == b"hello"
    await rig.until(lambda: not rig.relay._shared.tasks)


# -- clients that leave ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["FIN", "RST"])
@pytest.mark.parametrize("when", ["before", "dial", "pool", "head", "after", "body", "early"])
async def test_a_client_may_leave_at_any_time(rig, when, ending):
    async def serve(reader, writer):
        while True:
            head = await read_head(reader)
            reached.set()
            if b"X-When: head" in head:
                await reader.read()
            elif b"X-When: body" in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nx")
                await reader.read()
            else:
                writer.write(OK)

    async def never():
        reached.set()
        await asyncio.Event().wait()

    reached = asyncio.Event()
    await rig.start(Limits(half_closed=SOON, connections=1))
    app = await rig.app(serve)
    if when == "dial":
        rig.dialer.gate = asyncio.Event()
    if when in ("before", "after"):
        setattr(rig.steering, f"on_{when}", lambda *_: never())
    if when == "pool":
        other = await rig.peer()
        other.send(get(app, lines=b"X-When: head\r\n"))
        await reached.wait()
        reached.clear()
    method, lines = b"GET", b"X-When: %b\r\n" % when.encode()
    if when == "early":  # the answer came before the end of the request
        method, lines = b"POST", lines + b"Content-Length: 9\r\n"
    leaver = await rig.peer()
    leaver.send(get(app, method, lines))
    if when in ("dial", "pool"):
        await rig.until(lambda: rig.relay._pool.waiting == 1)
    else:
        await asyncio.wait_for(reached.wait(), 5)
    if when == "early":
        await leaver.answer()
    end(leaver.writer, ending)
    if when == "pool":
        end(other.writer, ending)
    await rig.until(lambda: rig.relay.clients == 0)
    if rig.dialer.gate is not None:
        rig.dialer.gate.set()
    await rig.until(lambda: rig.relay._pool.busy == 0 == rig.relay._pool.waiting)
    await rig.until(lambda: not rig.relay._shared.tasks)
    assert rig.relay.counters.abandoned == {"early": 0, "pool": 2}.get(when, 1)
    rig.steering.on_before = rig.steering.on_after = lambda *_: None
    peer = await rig.peer()
    peer.send(get(app))
    assert (await peer.answer())[1] == b"hello"
