"""How much, how many and how long: every bound of the relay in one place."""

from __future__ import annotations

from dataclasses import dataclass

_KIB = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    head: int = 64 * _KIB
    fields: int = 200
    target: int = 16 * _KIB
    chunk_line: int = 256
    trailers: int = 16 * _KIB
    pipelined: int = 16
    """Requests of one client read ahead while an earlier one is answered."""
    kept_per_origin: int = 8
    """Idle connections to one origin that are kept for ``idle_connection``; more for ``spare``."""
    connections: int = 1_000
    """To origins, in use or idle, tunnels aside."""
    waiting: int = 1_000
    """Requests that wait for a connection of the pool."""
    clients: int = 1_000
    discard: int = 256 * _KIB
    """A body nobody wants that is read to keep its connection; more closes it."""
    replay_memory: int = 8 * 1024 * _KIB
    """Of a request's body that is held in memory in order to be sent again; more goes to a file."""
    replay_file: int = 64 * 1024 * _KIB
    """Of a request's body that is held at all; past it the request is not sent again."""
    replay_all_memory: int = 64 * 1024 * _KIB
    """Of the bodies of all requests together that is held in memory."""
    replay_all_files: int = 1024 * 1024 * _KIB
    """Of the bodies of all requests together that is held in files."""
    informational: int = 32
    """1xx answers to one request."""

    client_head: float = 10.0
    """From the first byte of a request's head to its last."""
    pool_wait: float = 20.0
    """For a connection of the pool, dialling (10 s by the dialer's own deadline) included."""
    answer_head: float = 300.0
    """From the end of the request to the end of the answer's head."""
    idle_body: float = 120.0
    """Without a byte of a body in either direction."""
    idle_connection: float = 60.0
    """Between requests."""
    spare: float = 2.0
    """For an idle connection of an origin that has enough of them."""
    idle_tunnel: float = 600.0
    """Without a byte either way: WebSockets and TLS connections are quiet for minutes."""
    half_closed: float = 15.0
    """Of silence, once the client has sent FIN: most such clients are gone, and hold a place."""
    linger: float = 2.0
    """For a client to take a last answer before the connection closes (RFC 9112 section 9.6)."""

    def shortest(self) -> float:
        """The shortest of the times."""
        return min(
            self.client_head,
            self.pool_wait,
            self.answer_head,
            self.idle_body,
            self.idle_connection,
            self.spare,
            self.idle_tunnel,
            self.half_closed,
            self.linger,
        )
