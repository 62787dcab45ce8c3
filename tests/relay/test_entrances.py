"""Who comes in, and with what: the hooks by which an entrance refuses."""

from __future__ import annotations

import asyncio
import base64
import socket

import pytest

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
GOOD = b"Basic " + base64.b64encode(b"ann:secret")
CHALLENGE = b'Proxy-Authenticate: Basic realm="iam-auth-proxy"\r\n'


class Door:
    """An entrance that does as the test says."""

    name = "door"
    private = False
    local = True

    def __init__(self, *, admits: bool = True, guarded: bool = True) -> None:
        self.lets_in = admits
        self.guarded = guarded
        self.asked: list[tuple[bytes | None, str]] = []

    def admits(self, transport) -> bool:
        return self.lets_in

    def authenticates(self, credentials, client) -> bool:
        self.asked.append((credentials, client))
        return credentials == GOOD


@pytest.fixture
async def open_door(rig):
    """Puts the rig's listener behind a door."""
    servers = []

    async def behind(door: Door, own=None) -> None:
        await rig.start(own=own)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: rig.relay.connection(None, door), "127.0.0.1", 0, backlog=64
        )
        servers.append(server)
        rig.port = server.sockets[0].getsockname()[1]

    yield behind
    for server in servers:
        server.close()


def get(app, lines: bytes = b"", method: bytes = b"GET") -> bytes:
    return b"%b %b/ HTTP/1.1\r\nHost: app.test\r\n%b\r\n" % (method, app.url.encode(), lines)


async def test_who_is_not_admitted_hears_nothing_and_does_nothing(rig, open_door):
    door = Door(admits=False)
    await open_door(door)
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(app, b"Proxy-Authorization: " + GOOD + b"\r\n"))
    try:
        assert await peer.rest() == b""
    except ConnectionResetError:
        pass  # with the request unread
    assert (rig.relay.counters.strangers, rig.relay.counters.accepted) == (1, 0)
    assert (rig.relay.counters.requests, app.connections, rig.relay.clients) == (0, 0, 0)
    assert door.asked == []


async def test_a_request_that_lay_in_the_socket_already_is_not_read(rig, open_door):
    await open_door(Door(admits=False))
    app = await rig.answering(OK)
    early = socket.create_connection(("127.0.0.1", rig.port))  # accepted when the loop runs again
    early.sendall(get(app))
    early.shutdown(socket.SHUT_WR)
    await rig.until(lambda: rig.relay.counters.strangers == 1)
    early.close()
    assert (rig.relay.counters.requests, app.connections) == (0, 0)


async def test_requests_without_the_credentials_are_asked_for_them(rig, open_door):
    door = Door()
    await open_door(door)
    app = await rig.answering(OK)
    peer = await rig.peer()
    for lines in (
        b"",
        b"Proxy-Authorization: Basic eDp5\r\n",
        b"Authorization: " + GOOD + b"\r\n",
        (b"Proxy-Authorization: " + GOOD + b"\r\n") * 2,
    ):
        peer.send(get(app, lines))
        head, body = await peer.answer()
        assert head.startswith(b"HTTP/1.1 407 ")
        assert CHALLENGE in head
        assert body == b"This proxy asks for a password."
    assert app.connections == 0
    assert rig.steering.exchanges == []
    assert rig.relay.counters.unauthenticated == 4
    peer.send(get(app, b"Proxy-Authorization: " + GOOD + b"\r\n"))
    assert (await peer.answer())[1] == b"hello"
    assert [credentials for credentials, _ in door.asked] == [
        *(None, b"Basic eDp5", None, None, GOOD)
    ]
    assert door.asked[0][1].startswith("127.0.0.1:")


async def test_each_request_of_a_connection_is_asked_anew(rig, open_door):
    await open_door(Door())
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(app, b"Proxy-Authorization: " + GOOD + b"\r\n") + get(app))
    assert (await peer.answer())[1] == b"hello"
    assert (await peer.head()).startswith(b"HTTP/1.1 407 ")


async def test_a_body_behind_a_refused_head_is_no_request(rig, open_door):
    await open_door(Door())
    app = await rig.answering(OK)
    inner = get(app, b"Proxy-Authorization: " + GOOD + b"\r\n")
    peer = await rig.peer()
    peer.send(get(app, b"Content-Length: %d\r\n" % len(inner), b"POST") + inner)
    head, _ = await peer.answer()
    assert head.startswith(b"HTTP/1.1 407 ")
    assert b"Connection: close\r\n" in head
    assert await peer.rest() == b""
    assert app.connections == 0


async def test_connect_and_what_we_answer_ourselves_are_asked_too(rig, open_door):
    await open_door(Door())
    app = await rig.answering(OK)
    peer = await rig.peer()
    target = b"app.test:%d" % app.port
    for request in (
        b"CONNECT " + target + b" HTTP/1.1\r\nHost: app.test\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: proxy\r\n\r\n",
    ):
        peer.send(request)
        head, _ = await peer.answer()
        assert head.startswith(b"HTTP/1.1 407 ")
        assert CHALLENGE in head
    peer.send(b"CONNECT %b HTTP/1.1\r\nHost: x\r\nProxy-Authorization: %b\r\n\r\n" % (target, GOOD))
    assert (await peer.head()).startswith(b"HTTP/1.1 200 ")
    peer.send(b"GET / HTTP/1.1\r\n\r\n")
    assert (await peer.answer())[1] == b"hello"


@pytest.mark.parametrize("guarded", [True, False])
async def test_the_credentials_go_no_further(rig, open_door, guarded):
    await open_door(Door(guarded=guarded))
    app = await rig.answering(OK)
    peer = await rig.peer()
    peer.send(get(app, b"pRoxy-authorization: " + GOOD + b"\r\nX-After: 1\r\n"))
    assert (await peer.answer())[1] == b"hello"
    assert b"X-After: 1" in app.received
    assert b"uthorization" not in app.received
    (exchange,) = rig.steering.exchanges
    assert exchange.request.get(b"proxy-authorization") is None
    assert b"proxy-authorization" not in exchange.request.noted


async def test_own_pages_ask_in_the_words_of_a_server(rig, open_door):
    heads = []

    async def own():
        near, far = socket.socketpair()
        near.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=far)

        async def serve():
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)
            await reader.read()
            writer.close()

        serving.append(asyncio.create_task(serve()))
        return near

    serving: list[asyncio.Task[None]] = []
    door = Door()
    await open_door(door, own=own)
    peer = await rig.peer()
    page = b"GET /proxy.pac HTTP/1.1\r\nHost: proxy\r\n%b\r\n"
    peer.send(page % (b"Proxy-Authorization: " + GOOD + b"\r\n"))
    head, _ = await peer.answer()
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b'WWW-Authenticate: Basic realm="iam-auth-proxy"\r\n' in head
    assert heads == []
    peer.send(page % (b"Authorization: " + GOOD + b"\r\n"))
    assert (await peer.answer())[1] == b"hello"
    assert b"uthorization" not in heads[0]
    await peer.close()
    await rig.relay.close()
    await asyncio.gather(*serving)
