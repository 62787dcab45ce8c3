"""Whose a connection is, asked of the kernel about real sockets."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.proxy.listeners import peers
from iam_auth_proxy.proxy.listeners.peers import Peers, ProcNet, SockDiag, UidSource
from tests.support.users import NOBODY, Stranger

ME = os.geteuid()
RESET = struct.pack("ii", 1, 0)
# An address of this machine at which nobody takes a port between two steps of a test.
NOBODY_ELSES = "127.9.8.7"


@pytest.fixture(params=[SockDiag, ProcNet], ids=["sock_diag", "proc"])
def source(request: pytest.FixtureRequest) -> Iterator[UidSource]:
    with closing(request.param()) as source:
        yield source


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listener(opened: ExitStack, host: str = "127.0.0.1", both: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.create_server((host, 0), family=family, dualstack_ipv6=both)
    return opened.enter_context(made)


def connected(
    opened: ExitStack, server: socket.socket, host: str = "", own: tuple[str, int] | None = None
) -> tuple[socket.socket, socket.socket]:
    """A client and the accepted end."""
    name = server.getsockname()
    near = socket.create_connection((host or name[0], name[1]), 5, source_address=own)
    opened.enter_context(near)
    return near, opened.enter_context(server.accept()[0])


def owner(source: UidSource, accepted: socket.socket) -> int | None:
    names = accepted.getsockname(), accepted.getpeername()
    return Peers(source, ME).owner(accepted, *names)


# -- ours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bound", "dialled", "both"),
    [
        ("127.0.0.1", "127.0.0.1", False),
        ("127.8.9.10", "127.8.9.10", False),
        ("::1", "::1", False),
        ("::", "127.0.0.1", True),
        ("::", "::ffff:127.0.0.1", True),
        ("::", "::1", True),
    ],
)
def test_our_own(
    opened: ExitStack, source: UidSource, bound: str, dialled: str, both: bool
) -> None:
    _, accepted = connected(opened, listener(opened, bound, both), dialled)
    assert owner(source, accepted) == ME


def test_our_own_after_it_has_said_all(opened: ExitStack, source: UidSource) -> None:
    near, accepted = connected(opened, listener(opened))
    near.sendall(b"GET / HTTP/1.1\r\n\r\n")
    near.shutdown(socket.SHUT_WR)
    assert owner(source, accepted) == ME


def test_among_a_thousand(opened: ExitStack, source: UidSource) -> None:
    server = listener(opened)
    pairs = [connected(opened, server) for _ in range(200)]
    assert {owner(source, accepted) for _, accepted in pairs} == {ME}


# -- others' ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["127.0.0.1", "::1"])
def test_another_user(opened: ExitStack, source: UidSource, bound: str) -> None:
    server = listener(opened, bound)
    with closing(Stranger(f"{bound}:{server.getsockname()[1]}")):
        accepted = opened.enter_context(server.accept()[0])
        uid = owner(source, accepted)
    assert uid == NOBODY
    assert not Peers(source, ME).is_ours(uid)


def test_another_user_through_a_socket_of_both_families(
    opened: ExitStack, source: UidSource
) -> None:
    server = listener(opened, "::", both=True)
    with closing(Stranger(f"127.0.0.1:{server.getsockname()[1]}")):
        accepted = opened.enter_context(server.accept()[0])
        assert owner(source, accepted) == NOBODY


@pytest.mark.parametrize("farewell", ["s.sendall(b'GET'); s.close()", "s.close()"])
def test_a_socket_that_was_closed_has_no_owner_any_more(
    opened: ExitStack, source: UidSource, farewell: str
) -> None:
    """The kernel shows it with uid 0, which is who runs these tests."""
    server = listener(opened)
    stranger = Stranger(f"127.0.0.1:{server.getsockname()[1]}", farewell)
    accepted = opened.enter_context(server.accept()[0])
    stranger.close()
    assert owner(source, accepted) is None


def test_a_reset_connection_is_not_the_next_one_from_its_port(
    opened: ExitStack, source: UidSource
) -> None:
    """What a stranger sent before the reset can still be read, and the port is another's now."""
    server = listener(opened, NOBODY_ELSES)
    farewell = f"s.sendall(b'GET'); s.setsockopt(1, {socket.SO_LINGER}, {RESET!r}); s.close()"
    stranger = Stranger(f"{NOBODY_ELSES}:{server.getsockname()[1]}", farewell)
    accepted, peer = server.accept()
    opened.enter_context(accepted)
    own = accepted.getsockname()
    stranger.close()
    _, ours = connected(opened, server, own=peer)
    assert source.uid_of(peer, own) == ME, "the kernel finds the new one"
    assert Peers(source, ME).owner(accepted, own, peer) is None
    assert owner(source, ours) == ME
    assert accepted.recv(3) == b"GET"


def test_a_listener_on_the_port_of_a_client_that_went(opened: ExitStack, source: UidSource) -> None:
    near, accepted = connected(opened, listener(opened, NOBODY_ELSES), own=(NOBODY_ELSES, 0))
    own, peer = accepted.getsockname(), accepted.getpeername()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    near.close()
    opened.enter_context(socket.create_server(peer))
    assert source.uid_of(peer, own) is None


@pytest.mark.parametrize("far", ["10.99.88.77", "192.0.2.1", "2001:db8::1", "fe80::1%lo"])
def test_a_peer_elsewhere(opened: ExitStack, source: UidSource, far: str) -> None:
    own = ("::1", 8080) if ":" in far else ("127.0.0.1", 8080)
    assert source.uid_of((far, 40000), own) is None
    assert source.uid_of(own, (far, 40000)) is None


def test_what_is_no_address(opened: ExitStack, source: UidSource) -> None:
    _, accepted = connected(opened, listener(opened))
    for names in ((None, None), ("", ""), (("x", 1), ("y", 2)), (("127.0.0.1", 1), None)):
        assert Peers(source, ME).owner(accepted, *names) is None


# -- unix sockets ----------------------------------------------------------------------------------


def test_unix_sockets(opened: ExitStack, source: UidSource, tmp_path: Path) -> None:
    path = f"/tmp/iam-auth-proxy-test-{os.getpid()}.sock"  # where another user may look too
    server = opened.enter_context(socket.socket(socket.AF_UNIX))
    opened.callback(Path(path).unlink)
    server.bind(path)
    Path(path).chmod(0o666)
    server.listen()
    near = opened.enter_context(socket.socket(socket.AF_UNIX))
    near.connect(path)
    ours = opened.enter_context(server.accept()[0])
    assert owner(source, ours) == ME
    with closing(Stranger(path)):
        theirs = opened.enter_context(server.accept()[0])
        assert owner(source, theirs) == NOBODY


# -- answers ---------------------------------------------------------------------------------------

OWN, FAR = ("127.0.0.1", 40000), ("127.0.0.1", 8080)


def answer(
    family: int = socket.AF_INET,
    state: int = 1,
    names: bytes = peers._names(OWN, FAR)[1],
    uid: int = 1000,
    inode: int = 7,
) -> bytes:
    return peers._ANSWER.pack(family, state, 0, 0, names, bytes(12), 0, 0, 0, uid, inode)


def names(own: tuple[str, int], far: tuple[str, int]) -> bytes:
    return peers._names(own, far)[1]


MAPPED = peers._PORTS.pack(40000, 8080) + (bytes(10) + b"\xff\xff\x7f\x00\x00\x01") * 2


@pytest.mark.parametrize(
    ("body", "kind", "uid"),
    [
        (answer(), 20, 1000),
        (answer(uid=0), 20, 0),
        (answer(state=4), 20, 1000),
        (answer(state=5), 20, 1000),
        (answer(family=socket.AF_INET6, names=MAPPED), 20, 1000),
        (answer(), 2, None),  # an error
        (answer(), 3, None),
        (answer()[:-1], 20, None),
        (b"", 20, None),
        (answer(family=1), 20, 1000),  # of no meaning: the names are compared
        (answer(inode=0), 20, None),
        *[(answer(state=state), 20, None) for state in (0, 2, 3, 6, 7, 8, 9, 10, 11, 12)],
        (answer(names=names(OWN, ("127.0.0.1", 8081))), 20, None),
        (answer(names=names(("127.0.0.1", 40001), FAR)), 20, None),
        (answer(names=names(("127.0.0.2", 40000), FAR)), 20, None),
        (answer(names=names(OWN, ("127.0.0.2", 8080))), 20, None),
        (answer(names=names(FAR, OWN)), 20, None),
        (answer(names=names(OWN, ("0.0.0.0", 0))), 20, None),  # a listener
    ],
)
def test_what_counts_as_an_answer(body: bytes, kind: int, uid: int | None) -> None:
    assert peers._owner(kind, body, names(OWN, FAR)) == uid


@given(st.integers(0, 65535), st.binary(max_size=120))
def test_any_answer_is_about_this_socket_or_none(kind: int, body: bytes) -> None:
    assert peers._owner(kind, body, names(OWN, FAR)) is None


class Channel:
    """A netlink socket that answers as a test says: (sender's port id, sequence's offset)."""

    def __init__(self, *said: tuple[int, int]) -> None:
        self._said = list(said)
        self._sequence = 0
        self.closed = False

    def sendto(self, question: bytes, address: tuple[int, int]) -> None:
        self._sequence = peers._HEADER.unpack_from(question)[3]

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        if not self._said:
            raise BlockingIOError
        sender, offset = self._said.pop(0)
        header = peers._HEADER.pack(16 + 72, 20, 0, self._sequence + offset, 0)
        return header + answer(), (sender, 0)

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("said", "uid"),
    [
        ([(0, 0)], 1000),
        ([(0, -1), (0, 0)], 1000),  # the answer to a question that was given up
        ([(4711, 0), (0, 0)], 1000),  # not from the kernel
        ([(4711, 0)], None),
        ([(0, 1)] * 100, None),
        ([], None),
    ],
)
def test_only_the_kernels_answer_to_this_question(
    said: list[tuple[int, int]], uid: int | None
) -> None:
    channel = Channel(*said)
    source = SockDiag(lambda: channel)  # type: ignore[arg-type,return-value]  # a stand-in
    assert source.uid_of(OWN, FAR) == uid
    assert channel.closed == (uid is None), "the next question goes by another socket"


def test_a_socket_that_broke_is_opened_again(opened: ExitStack) -> None:
    _, accepted = connected(opened, listener(opened))
    with closing(SockDiag()) as source:
        assert owner(source, accepted) == ME
        assert source._socket is not None
        os.close(source._socket.detach())
        assert owner(source, accepted) is None
        assert owner(source, accepted) == ME


@pytest.mark.parametrize(
    "text",
    ["", "garbage", "  0: 0100007F:9C40 0100007F:1F90", "  0: 0100007F:9C40 0100007F:1F90 x y z\n"],
)
def test_a_table_that_is_something_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "tcp").write_text(text)
    assert ProcNet(tmp_path).uid_of(OWN, FAR) is None


@pytest.mark.parametrize("state", range(1, 13))
def test_a_table_shows_an_owner_in_three_states(tmp_path: Path, state: int) -> None:
    """In all others a line says nobody's uid, or that of who left."""
    near, far = peers._in_proc(OWN, False), peers._in_proc(FAR, False)
    line = f"   0: {near} {far} {state:02X} 00000000:00000000 00:00000000 00000000 1000 0 4242 1\n"
    (tmp_path / "tcp").write_text(line)
    assert ProcNet(tmp_path).uid_of(OWN, FAR) == (1000 if state in (1, 4, 5) else None)


# -- the process itself ----------------------------------------------------------------------------


def test_netlink_first_then_proc_then_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Blind(SockDiag):
        def uid_of(self, own: object, far: object) -> int | None:
            asked.append("blind")
            return None

    made = Peers.of_this_process()
    assert made is not None
    assert isinstance(made._source, SockDiag)
    monkeypatch.setattr(peers, "SockDiag", Blind)
    made = Peers.of_this_process()
    assert made is not None
    assert isinstance(made._source, ProcNet)
    monkeypatch.setattr(peers, "ProcNet", Blind)
    with pytest.raises(ConfigError, match="does not say who connects"):
        Peers.of_this_process()
    assert asked == ["blind"] * 3


def test_where_the_system_cannot_tell_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "IS_CHECKED", False)
    assert Peers.of_this_process() is None


def test_whoever_shares_the_uid_of_unknown_users_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers, "_is_ambiguous", lambda uid: True)
    with pytest.raises(ConfigError):
        Peers.of_this_process()


def test_root_is_another_user() -> None:
    assert not Peers(SockDiag(), 1000).is_ours(0)
    assert not Peers(SockDiag(), 0).is_ours(None)
