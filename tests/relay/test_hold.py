"""Bodies that are kept so that a request can go out again: whole, within bounds, no longer."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile

import pytest

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.relay.exchange import REPEAT, Reply
from iam_auth_proxy.relay.kept import KeptBody, Room
from iam_auth_proxy.relay.limits import Limits
from tests.relay.conftest import read_head, reset

NO = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
KIB = 1024
MIB = 1024 * KIB
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMALL = Limits(replay_memory=100 * KIB, replay_file=MIB)


@pytest.fixture(autouse=True)
def _directory(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def post(app, lines: bytes, path: bytes = b"/") -> bytes:
    url = app.url.encode() + path
    return b"POST %b HTTP/1.1\r\nHost: app.test:%d\r\n%b\r\n" % (url, app.port, lines)


def counted(size: int) -> bytes:
    return b"Content-Length: %d\r\n" % size


def body_of(size: int) -> bytes:
    return (b"%07d\n" * (size // 8 + 1) % tuple(range(size // 8 + 1)))[:size]


def hold(exchange):
    exchange.hold = True


def sign_in(exchange, answer):
    if answer.status != 401:
        return None

    async def decide():
        await asyncio.sleep(0)
        if not exchange.repeatable:
            return Reply(307, [(b"Location", exchange.request.target)])
        exchange.request.headers.append((b"Cookie", b"s=1"))
        return REPEAT

    return decide()


def gated(gate: asyncio.Event, result=REPEAT):
    """Like :func:`sign_in`, at a time of the test's own; ``result`` if it is not REPEAT."""

    def after(exchange, answer):
        async def decide():
            await gate.wait()
            exchange.request.headers.append((b"Cookie", b"s=1"))
            return result if exchange.repeatable else Reply(307)

        return decide() if answer.status == 401 else None

    return after


async def read_body(reader, head: bytes) -> bytes:
    """In its framing."""
    length = re.search(rb"\r\nContent-Length: (\d+)", head)
    if length is not None:
        return await reader.readexactly(int(length[1]))
    body = b""
    while not body.endswith(b"0\r\n\r\n"):
        body += await reader.readuntil(b"\r\n")
        if body.endswith(b"\r\n0\r\n"):
            while not body.endswith(b"\r\n\r\n"):
                body += await reader.readuntil(b"\r\n")
            break
    return body


async def serve_patiently(reader, writer):
    """Reads every body, refuses without a cookie, and answers with the body's digest."""
    while True:
        head = await read_head(reader)
        if b"Expect" in head:
            if b"Cookie" not in head:
                writer.write(NO)
                await reader.read()
                return
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await read_body(reader, head)
        writer.write(digest(body) if b"Cookie" in head else NO)


def digest(body: bytes) -> bytes:
    text = hashlib.sha256(body).hexdigest().encode()
    return OK % (len(text), text)


async def serve_hastily(reader, writer, *, how: str):
    """Refuses without a cookie before it has read the body, and then...

    ... closes, resets, never reads, or reads on.
    """
    head = await read_head(reader)
    if b"Cookie" in head:
        writer.write(digest(await read_body(reader, head)))
        await reader.read()
        return
    writer.transport.pause_reading()
    writer.write(NO)
    await writer.drain()
    if how == "closes":
        return
    if how == "resets":
        await asyncio.sleep(0.05)  # for the answer to be on its way; a reset overtakes nothing
        reset(writer)
        return
    if how == "reads on":
        writer.transport.resume_reading()
    while await reader.read(MIB):
        pass


async def send_slowly(peer, data: bytes, piece: int = 256 * KIB) -> None:
    for at in range(0, len(data), piece):
        peer.send(data[at : at + piece])
        await peer.writer.drain()


def nothing_is_kept(rig) -> bool:
    room = rig.relay._shared.room
    return (room.memory, room.filed) == (0, 0)


def open_files() -> int:
    """Unlinked files in the temporary directory that this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        count += target.startswith(tempfile.gettempdir()) and target.endswith("(deleted)")
    return count


@pytest.mark.parametrize("size", [1, 5, 99 * KIB, 700 * KIB])
@pytest.mark.parametrize("limits", [Limits(), SMALL], ids=["memory", "file"])
async def test_a_counted_body_goes_out_twice(rig, size, limits):
    await rig.start(limits)
    app = await rig.app(serve_patiently)
    rig.steering.on_before, rig.steering.on_after = hold, sign_in
    peer = await rig.peer()
    body = body_of(size)
    for _ in range(2):
        peer.send(post(app, counted(size)) + body)
        head, text = await peer.answer()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert text == hashlib.sha256(body).hexdigest().encode()
    assert bytes(app.received).count(body) >= 4
    # An app may answer before it has read a body, and mean to close: never again on that one.
    assert app.connections == 3
    assert rig.relay.counters.repeated == 2
    assert nothing_is_kept(rig)
    assert open_files() == 0


async def test_a_chunked_body_keeps_its_chunks_and_trailers(rig):
    await rig.start()
    app = await rig.app(serve_patiently)
    rig.steering.on_before, rig.steering.on_after = hold, sign_in
    peer = await rig.peer()
    body = b'3;ext="a"\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nx-two: 2\r\n\r\n'
    peer.send(post(app, CHUNKED))
    for at in range(len(body)):
        peer.send(body[at : at + 1])
        await asyncio.sleep(0)
    assert (await peer.answer())[1] == hashlib.sha256(body).hexdigest().encode()
    assert bytes(app.received).count(body) == 2
    assert nothing_is_kept(rig)


async def test_a_malformed_chunk_behind_a_repeat_reaches_nobody(rig):
    await rig.start()
    app = await rig.app(lambda r, w: serve_hastily(r, w, how="reads on"))
    gate = asyncio.Event()
    rig.steering.on_before, rig.steering.on_after = hold, gated(gate)
    peer = await rig.peer()
    peer.send(post(app, CHUNKED) + b"3\r\nabc\r\n")
    await rig.until(lambda: bool(rig.steering.answers))
    gate.set()
    await rig.until(lambda: app.connections == 2)
    peer.send(b"3\r\nabcdef")
    assert (await peer.head()).startswith(b"HTTP/1.1 400 ")
    assert b"abcdef" not in app.received
    assert nothing_is_kept(rig)


@pytest.mark.parametrize("how", ["closes", "resets", "never reads", "reads on"])
@pytest.mark.parametrize("size", [100 * KIB, 6 * MIB])
async def test_an_app_that_refuses_before_it_has_read_gets_all_of_it_the_second_time(
    rig, how, size
):
    await rig.start(Limits(replay_memory=MIB, replay_file=16 * MIB))
    app = await rig.app(lambda r, w: serve_hastily(r, w, how=how))
    rig.steering.on_before, rig.steering.on_after = hold, sign_in
    peer = await rig.peer()
    body = body_of(size)
    peer.send(post(app, counted(size)))
    sending = asyncio.ensure_future(send_slowly(peer, body))
    head, text = await peer.answer()
    await sending
    assert head.startswith(b"HTTP/1.1 200 "), text
    assert text == hashlib.sha256(body).hexdigest().encode()
    assert rig.relay.counters.repeated == 1
    assert nothing_is_kept(rig)


async def test_the_rest_comes_behind_what_was_kept(rig):
    """At the bound the client waits; once the request goes out again all of it arrives."""
    await rig.start(SMALL)
    app = await rig.app(lambda r, w: serve_hastily(r, w, how="never reads"))
    gate = asyncio.Event()
    rig.steering.on_before, rig.steering.on_after = hold, gated(gate)
    peer = await rig.peer()
    body = body_of(24 * MIB)
    peer.send(post(app, counted(len(body))))
    sending = asyncio.ensure_future(send_slowly(peer, body))
    room = rig.relay._shared.room
    await rig.until(lambda: room.memory + room.filed >= MIB)
    await asyncio.sleep(0.1)
    (client,) = rig.relay._shared.clients
    assert client._exchange._upload._kept.size <= MIB + 512 * KIB
    assert open_files() == 1
    assert rig.steering.exchanges[0].repeatable
    gate.set()
    head, text = await peer.answer()
    await sending
    assert head.startswith(b"HTTP/1.1 200 ")
    assert text == hashlib.sha256(body).hexdigest().encode()
    assert not rig.steering.exchanges[0].repeatable
    assert nothing_is_kept(rig)
    assert open_files() == 0


async def test_past_the_bound_a_body_flows_on_and_is_not_sent_again(rig):
    await rig.start(SMALL)
    app = await rig.app(serve_patiently)
    rig.steering.on_before, rig.steering.on_after = hold, sign_in
    peer = await rig.peer()
    body = body_of(8 * MIB)
    peer.send(post(app, counted(len(body)), b"/up"))
    await send_slowly(peer, body)
    head, _ = await peer.answer()
    assert head.startswith(b"HTTP/1.1 307 ")
    assert b"\r\nLocation: /up\r\n" in head
    assert bytes(app.received).endswith(body)
    assert rig.relay.counters.repeated == 0
    assert nothing_is_kept(rig)


@pytest.mark.parametrize(("size", "status"), [(0, 307), (4, 307), (5, 200)])
async def test_how_much_is_kept_can_be_set(rig, size, status):
    await rig.start()
    rig.relay.keep_bodies(size)
    app = await rig.app(serve_patiently)
    rig.steering.on_before, rig.steering.on_after = hold, sign_in
    peer = await rig.peer()
    peer.send(post(app, counted(5)) + b"h")
    await rig.until(lambda: app.received.endswith(b"\r\nh"))
    peer.send(b"ell")
    await rig.until(lambda: app.received.endswith(b"hell"))
    peer.send(b"o")
    assert (await peer.head()).startswith(b"HTTP/1.1 %d " % status)
    assert open_files() == 0


async def test_the_last_byte_may_be_the_one_too_many(rig):
    await rig.start(SMALL)
    app = await rig.app(serve_patiently)
    rig.steering.on_before, rig.steering.on_after = hold, sign_in
    peer = await rig.peer()
    body = body_of(MIB + 1)
    peer.send(post(app, counted(len(body))) + body[:-1])
    room = rig.relay._shared.room
    await rig.until(lambda: room.memory + room.filed == MIB)
    await rig.until(lambda: bytes(app.received).endswith(body[-100:-1]))
    peer.send(body[-1:])
    assert (await peer.head()).startswith(b"HTTP/1.1 307 ")
    assert bytes(app.received).count(body) == 1
    assert app.connections == 1


async def test_a_reply_reaches_a_client_that_is_still_sending(rig):
    await rig.start(SMALL)
    app = await rig.app(lambda r, w: serve_hastily(r, w, how="never reads"))

    async def redirect():
        return Reply(307, [(b"Location", b"/again")])

    rig.steering.on_before, rig.steering.on_after = hold, lambda *_: redirect()
    peer = await rig.peer()
    peer.send(post(app, counted(64 * MIB)) + body_of(8 * MIB))
    head, _ = await peer.answer()
    assert head.startswith(b"HTTP/1.1 307 ")
    assert b"\r\nConnection: close\r\n" in head
    assert nothing_is_kept(rig)


async def test_a_client_that_waits_for_100_sends_its_body_once(rig):
    await rig.start()
    app = await rig.app(serve_patiently)
    rig.steering.on_before, rig.steering.on_after = hold, sign_in
    peer = await rig.peer()
    body = body_of(300 * KIB)
    peer.send(post(app, counted(len(body)) + b"Expect: 100-continue\r\n"))
    assert await peer.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    peer.send(body)
    assert (await peer.answer())[1] == hashlib.sha256(body).hexdigest().encode()
    assert bytes(app.received).count(body) == 1
    assert rig.relay.counters.repeated == 1


async def test_nothing_taken_is_nothing_lost_without_hold(rig):
    await rig.start()
    app = await rig.app(serve_patiently)
    rig.steering.on_after = sign_in
    peer = await rig.peer()
    peer.send(post(app, counted(4) + b"Expect: 100-continue\r\n"))
    await peer.head()
    peer.send(b"body")
    assert (await peer.answer())[1] == hashlib.sha256(b"body").hexdigest().encode()


@pytest.mark.parametrize("how", ["reads on", "never reads", "closes"])
async def test_an_answer_that_is_passed_on_after_all(rig, how):
    """The app gets what it has not got yet, and the connection goes on where that can be."""
    await rig.start(SMALL)
    app = await rig.app(lambda r, w: serve_hastily(r, w, how=how))
    gate = asyncio.Event()
    rig.steering.on_before, rig.steering.on_after = hold, gated(gate, None)
    peer = await rig.peer()
    body = body_of(600 * KIB)
    peer.send(post(app, counted(len(body))) + body)
    await rig.until(lambda: bool(rig.steering.answers))
    (client,) = rig.relay._shared.clients
    await rig.until(lambda: client._body is None)
    gate.set()
    head, text = await peer.answer()
    assert (head[:12], text) == (b"HTTP/1.1 401", b"no")
    await rig.until(lambda: nothing_is_kept(rig))
    if how == "reads on":
        await rig.until(lambda: bytes(app.received).endswith(body))
    if how == "closes":
        peer.send(post(app, counted(1) + b"Cookie: s=1\r\n") + b"x")
        assert (await peer.answer())[1] == hashlib.sha256(b"x").hexdigest().encode()


@pytest.mark.parametrize("leaves", ["reset", "half-close"])
async def test_a_client_that_leaves_frees_what_was_kept(rig, leaves):
    await rig.start(SMALL)
    app = await rig.app(lambda r, w: serve_hastily(r, w, how="never reads"))
    rig.steering.on_before, rig.steering.on_after = hold, gated(asyncio.Event())
    peer = await rig.peer()
    peer.send(post(app, counted(MIB)) + body_of(500 * KIB))
    room = rig.relay._shared.room
    await rig.until(lambda: bool(rig.steering.answers) and room.memory + room.filed == 500 * KIB)
    assert open_files() == 1
    if leaves == "reset":
        peer.reset()
    else:
        peer.writer.write_eof()
    await rig.until(lambda: rig.relay.clients == 0)
    assert nothing_is_kept(rig)
    assert open_files() == 0
    assert rig.relay.origins == 0


async def test_a_client_that_stops_sending_is_not_waited_for(rig):
    await rig.start(Limits(idle_body=0.15))
    app = await rig.app(lambda r, w: serve_hastily(r, w, how="reads on"))
    rig.steering.on_before, rig.steering.on_after = hold, sign_in
    peer = await rig.peer()
    peer.send(post(app, counted(100)) + b"x")
    assert (await peer.head()).startswith(b"HTTP/1.1 408 ")
    assert nothing_is_kept(rig)


async def test_an_app_that_takes_nothing_the_second_time_is_not_waited_for(rig):
    async def serve(reader, writer):
        if b"Cookie" not in await read_head(reader):
            await reader.readexactly(12 * MIB)
            writer.write(NO)
            await reader.read()
            return
        writer.transport.pause_reading()
        await asyncio.Event().wait()

    await rig.start(Limits(idle_body=0.3))
    app = await rig.app(serve)

    def after(exchange, answer):
        async def decide():
            exchange.request.headers.append((b"Cookie", b"s=1"))
            exchange.path.retire()  # as where the app closes it
            return REPEAT

        return decide()

    rig.steering.on_before, rig.steering.on_after = hold, after
    peer = await rig.peer()
    peer.send(post(app, counted(12 * MIB)))
    await send_slowly(peer, body_of(12 * MIB))
    head, text = await peer.answer()
    assert head.startswith(b"HTTP/1.1 504 ")
    assert text == b"connection_write_timeout"
    assert nothing_is_kept(rig)


async def test_a_slow_app_holds_the_client_back(rig):
    """What is kept is no reason to take more of a client than the app does."""
    read = asyncio.Event()

    async def serve(reader, writer):
        await read_head(reader)
        writer.transport.pause_reading()
        await read.wait()
        writer.transport.resume_reading()
        writer.write(digest(await reader.readexactly(40 * MIB)))

    await rig.start()
    app = await rig.app(serve)
    rig.steering.on_before = hold
    peer = await rig.peer()
    body = body_of(40 * MIB)
    peer.send(post(app, counted(len(body))))
    sending = asyncio.ensure_future(send_slowly(peer, body))
    room = rig.relay._shared.room
    last = -1
    while room.memory + room.filed != last:
        last = room.memory + room.filed
        await asyncio.sleep(0.1)
    assert last < 20 * MIB
    read.set()
    assert (await peer.answer())[1] == hashlib.sha256(body).hexdigest().encode()
    await sending
    assert nothing_is_kept(rig)


async def test_a_stale_connection_is_no_loss_for_a_put_that_is_kept(rig):
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        head = await read_head(reader)
        body = await read_body(reader, head)
        writer.write(digest(body))
        await read_head(reader)
        reset(writer)

    await rig.start()
    app = await rig.app(serve)
    rig.steering.on_before = hold
    peer = await rig.peer()
    put = post(app, counted(4)).replace(b"POST", b"PUT") + b"body"
    for _ in range(2):
        peer.send(put)
        assert (await peer.answer())[0].startswith(b"HTTP/1.1 200 ")
    assert rig.relay.counters.retried == 1


async def test_a_disk_that_takes_nothing_makes_it_unrepeatable_and_no_more(rig, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    await rig.start(SMALL)
    app = await rig.app(serve_patiently)
    rig.steering.on_before, rig.steering.on_after = hold, sign_in
    peer = await rig.peer()
    body = body_of(5 * MIB)
    peer.send(post(app, counted(len(body))))
    await send_slowly(peer, body)
    assert (await peer.head()).startswith(b"HTTP/1.1 307 ")
    assert bytes(app.received).endswith(body)
    assert nothing_is_kept(rig)


async def test_all_requests_together_keep_no_more_than_they_may(rig):
    await rig.start(
        Limits(
            replay_memory=100 * KIB,
            replay_file=2 * MIB,
            replay_all_memory=150 * KIB,
            replay_all_files=MIB,
        )
    )
    app = await rig.app(lambda r, w: serve_hastily(r, w, how="never reads"))
    gate = asyncio.Event()
    rig.steering.on_before, rig.steering.on_after = hold, gated(gate)
    peers = [await rig.peer() for _ in range(6)]
    body = body_of(2 * MIB)
    for peer in peers:
        peer.send(post(app, counted(len(body))))
    await rig.until(lambda: len(rig.steering.answers) == len(peers))
    sending = [asyncio.ensure_future(send_slowly(peer, body)) for peer in peers]
    await asyncio.sleep(0.3)
    room = rig.relay._shared.room
    assert room.memory <= 150 * KIB + 512 * KIB
    assert room.filed <= MIB + 512 * KIB
    gate.set()
    for peer in peers:  # what was kept goes out, and the rest comes behind it
        assert (await peer.answer())[1] == hashlib.sha256(body).hexdigest().encode()
    await asyncio.gather(*sending)
    assert nothing_is_kept(rig)


def test_the_file_is_private_and_has_no_name():
    room = Room(Limits(replay_memory=0, replay_file=MIB))
    before = set(os.listdir(tempfile.gettempdir()))
    kept = KeptBody(room)
    kept.append(b"secret")
    assert kept._file is not None
    found = os.fstat(kept._file.fileno())
    assert (found.st_mode & 0o777, found.st_nlink, found.st_uid) == (0o600, 0, os.getuid())
    assert not os.get_inheritable(kept._file.fileno())
    assert set(os.listdir(tempfile.gettempdir())) == before
    assert kept.read(2, 100) == b"cret"
    os.ftruncate(kept._file.fileno(), 1)
    with pytest.raises(PathError):
        kept.read(3, 1)
    kept.close()
    assert (room.memory, room.filed) == (0, 0)


@pytest.mark.parametrize("memory", [0, 10, 1000])
@pytest.mark.parametrize("file", [0, 10, 30, 1000])
def test_what_was_kept_comes_back_wherever_it_is(memory, file):
    room = Room(Limits(replay_memory=memory, replay_file=1000, replay_all_files=file))
    kept = KeptBody(room)
    pieces = [b"0123456", b"789", b"abcdefghijkl", b"m", b"nopq"]
    for piece in pieces:
        kept.append(piece)
    whole = b"".join(pieces)
    for step in (1, 4, 100):
        got = b""
        while len(got) < kept.size:
            got += kept.read(len(got), step)
        assert got == whole
    kept.close()
    assert (room.memory, room.filed) == (0, 0)
