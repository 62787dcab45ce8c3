"""A request's body on its way: from the client, kept where it may have to go out again, onwards."""

from __future__ import annotations

from typing import Final

from iam_auth_proxy.relay.kept import KeptBody, Room
from iam_auth_proxy.relay.origin import OriginConnection

_PIECE: Final = 64 * 1024
# Pieces in one turn of the loop: an origin that is as fast as memory must not hold up all others.
_PIECES: Final = 16


class Upload:
    """One request's body.

    What is not kept goes out as it comes. What is kept may wait as well: for a decision, for
    another connection, or for an origin that is slower than the client was.

    :ivar done: taken from the client to its end.
    :ivar whole: all that was taken from the client is here still.
    """

    __slots__ = ("_final", "_kept", "_path", "_pending", "_sent", "done", "whole")

    def __init__(self, content: bytes, done: bool) -> None:
        self._pending = content  # waits for a connection, where nothing is kept
        self._kept: KeptBody | None = None
        self._sent = 0  # of what is kept, to the connection of now
        self._path: OriginConnection | None = None
        self._final = False
        self.done = done
        self.whole = True

    @property
    def sent(self) -> bool:
        """All of the body has been written to the connection of now."""
        return self.done and not self._is_behind()

    def keep(self, room: Room) -> None:
        """Keep it from now on, which is before anything of it was sent."""
        self._kept = KeptBody(room)
        if self._pending:
            self._kept.append(self._pending)
            self._pending = b""

    def is_wanted(self, *, deciding: bool) -> bool:
        """Whether the client shall go on sending.

        :param deciding: it is not known yet whether the request goes out again, so nothing more is
            taken than can be kept.
        """
        kept, path = self._kept, self._path
        if kept is not None:
            if kept.full and (deciding or self._is_behind()):
                return False
            if deciding:
                return True
        return path is not None and not path.write_paused

    def start(self, path: OriginConnection) -> bytes:
        """The first piece for a connection, to be written by the caller, who then says `go_on`.

        :raises PathError: see :meth:`go_on`.
        """
        self._path = path
        if self._kept is not None:
            piece = self._kept.read(0, _PIECE) if self._kept.size else b""
            self._sent = len(piece)
            return piece
        piece, self._pending = self._pending, b""
        if piece:
            self.whole = False
        return piece

    def stop(self) -> None:
        """The connection is gone, or given up."""
        self._path = None
        self._sent = 0

    def take(self, data: bytes, done: bool, *, deciding: bool) -> None:
        """More from the client, validated and in its framing."""
        self.done = done
        kept, path = self._kept, self._path
        if kept is not None:
            behind = self._is_behind()
            if deciding or behind or not kept.full:
                kept.append(data)
                if behind or path is None or path.write_paused:
                    return
                self._sent = kept.size
            else:
                self._forget()  # more than may be kept: it goes out once
        else:
            self.whole = False
        if path is None:
            self._pending += data
        elif not path.transport.is_closing():
            path.transport.write(data)
            if done:
                path.request_sent()

    def go_on(self) -> None:
        """Write what the connection takes of what is kept.

        :raises PathError: what was kept cannot be read back.
        """
        path, kept = self._path, self._kept
        if path is None or path.transport.is_closing():
            return
        if kept is not None:
            for _ in range(_PIECES):
                if self._sent >= kept.size or path.write_paused:
                    break
                piece = kept.read(self._sent, _PIECE)
                self._sent += len(piece)
                path.transport.write(piece)
            if self._sent < kept.size:
                return
        if self.done:
            path.request_sent()
        if self._final:
            self._forget()

    def is_ready(self) -> bool:
        """Whether :meth:`go_on` has more to do at once."""
        path = self._path
        return (
            self._is_behind()
            and path is not None
            and not (path.write_paused or path.transport.is_closing())
        )

    def settle(self) -> None:
        """It will not go out again: keep only what has not gone out yet."""
        self._final = True
        if not self._is_behind():
            self._forget()

    def close(self) -> None:
        """The exchange is over."""
        self._forget()
        self._path = None

    def _is_behind(self) -> bool:
        return self._kept is not None and self._sent < self._kept.size

    def _forget(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None
            self.whole = False
