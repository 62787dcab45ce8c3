"""TLS towards an app: strict, and with no way around it.

The system's store and the person's own authorities, TLS 1.2 at least, the origin's host as the name
that is asked for and verified, ``http/1.1`` alone. Contexts read the whole store, so they are made
off the loop, when first needed.

A handshake is made by the loop, which takes whatever can ``wrap_bio`` for its context. That is
where :class:`_Attempt` stands: it begins with the session of an earlier handshake (RFC 8446 section
2.2, RFC 5077: a round trip less in TLS 1.2), and remembers what the peer showed when it failed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay import tls_failures

_P = TypeVar("_P", bound=asyncio.BaseProtocol)

# What a peer may take for its close_notify; the connection is of no use to anybody by then.
_SHUTDOWN: Final = 5.0
# Seconds after which the tickets of TLS 1.3, which follow the handshake, are there.
_TICKETS_BY: Final = 1.0
# A certificate is looked at in full this often at least, since a resumed handshake shows none.
_RESUMED_FOR: Final = 600.0
_SESSIONS: Final = 256
# The store may have changed meanwhile; it is not read more often than this on that suspicion.
_STORE_HOLDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """A client certificate with its chain, and its key: paths of PEM files."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class _Session:
    session: ssl.SSLSession
    verified: float  # loop time


class _Context:
    """A context, and the sessions that were made with it: OpenSSL takes them in no other.

    :ivar made: loop time; ``stamp``: see :func:`_stamp`.
    """

    def __init__(self, context: ssl.SSLContext, made: float, stamp: object) -> None:
        self.context = context
        self.made = made
        self.stamp = stamp
        self._sessions: OrderedDict[Origin, _Session] = OrderedDict()

    def session(self, origin: Origin, now: float) -> _Session | None:
        """The session to resume with this origin."""
        found = self._sessions.get(origin)
        if found is not None and now - found.verified > _RESUMED_FOR:
            del self._sessions[origin]
            return None
        return found

    def keep(self, origin: Origin, made: ssl.SSLObject, verified: float) -> None:
        """What the handshake gave for the next one."""
        session = made.session
        if session is None or not (session.has_ticket or session.id):
            return
        self._sessions[origin] = _Session(session, verified)
        self._sessions.move_to_end(origin)
        while len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)

    def forget(self, origin: Origin) -> None:
        """Forgets the session: the next handshake with this origin is a full one."""
        self._sessions.pop(origin, None)


class ClientTls:
    """Makes TLS of connections to apps.

    :param authorities: a PEM file that counts besides the system's store; empty: none.
    :param never_by: an organisation whose certificates no app may show, whatever the store says.
    """

    def __init__(self, authorities: str = "", *, never_by: str = "") -> None:
        self._authorities = authorities
        self._never_by = ("organizationName", never_by) if never_by else None
        self._contexts: dict[ClientIdentity | None, _Context] = {}
        self._building = asyncio.Lock()

    async def prepare(self, identity: ClientIdentity | None) -> None:
        """Have what a handshake needs, so that nothing is dialled without it.

        :raises PathError: a certificate or key cannot be read.
        """
        await self._context(identity)

    async def connect(
        self,
        sock: socket.socket,
        origin: Origin,
        protocol_factory: Callable[[], _P],
        identity: ClientIdentity | None,
    ) -> tuple[asyncio.Transport, _P]:
        """A verified connection to ``origin`` over a connected socket, which is taken over.

        :raises PathError: the peer is not that origin, or there was no handshake with it.
        """
        context = await self._context(identity)
        loop = asyncio.get_running_loop()
        resumed = context.session(origin, loop.time())
        attempt = _Attempt(context.context, resumed.session if resumed is not None else None)
        try:
            transport, protocol = await loop.create_connection(
                protocol_factory,
                sock=sock,
                ssl=cast(ssl.SSLContext, attempt),
                server_hostname=origin.host.removesuffix("."),
                ssl_shutdown_timeout=_SHUTDOWN,
            )
        except (OSError, UnicodeError, ValueError) as error:
            sock.close()
            context.forget(origin)
            if isinstance(error, ssl.SSLCertVerificationError):
                self._doubt(context)
            raise await tls_failures.handshake(origin, error, attempt.shown()) from error
        except BaseException:
            sock.close()
            raise
        made = attempt.made
        if made is None or made.selected_alpn_protocol() not in (None, "http/1.1"):
            transport.abort()
            raise tls_failures.other_protocol(origin)
        if self._never_by is not None and self._never_by in _issuer(made):
            transport.abort()
            raise tls_failures.own_authority(origin)
        verified = resumed.verified if resumed and made.session_reused else loop.time()
        loop.call_later(_TICKETS_BY, context.keep, origin, made, verified)
        return transport, protocol

    async def _context(self, identity: ClientIdentity | None) -> _Context:
        stamp = _stamp(identity)
        found = self._contexts.get(identity)
        if found is not None and found.stamp == stamp:
            return found
        async with self._building:
            found = self._contexts.get(identity)
            if found is None or found.stamp != stamp:
                context = await asyncio.to_thread(_build, self._authorities, identity)
                found = _Context(context, asyncio.get_running_loop().time(), stamp)
                self._contexts[identity] = found
        return found

    def _doubt(self, context: _Context) -> None:
        """A certificate was not accepted: an authority may have been added since."""
        if asyncio.get_running_loop().time() - context.made > _STORE_HOLDS:
            self._contexts.clear()


def _issuer(made: ssl.SSLObject) -> set[tuple[str, str]]:
    """What the certificate of a verified peer says of who signed it: attributes and values."""
    issuer: Any = (made.getpeercert() or {}).get("issuer", ())
    return {attribute for names in issuer for attribute in names}


def _stamp(identity: ClientIdentity | None) -> object:
    """Changes when the files do: certificates of a few hours are renewed under a running proxy."""
    if identity is None:
        return None
    try:
        found = [os.stat(path) for path in (identity.certificate, identity.key)]
    except OSError:
        return None  # what is wrong is said when they are read
    return [(one.st_ino, one.st_mtime_ns, one.st_size) for one in found]


def _build(authorities: str, identity: ClientIdentity | None) -> ssl.SSLContext:
    """Blocks: the store has some hundred certificates.

    It is no ``ssl.create_default_context()``, which writes session keys where a variable says so.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies, and checks the host
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # RFC 9525 section 6.3
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_default_certs()
    try:
        if authorities:
            context.load_verify_locations(cafile=authorities)
        if identity is not None:
            context.load_cert_chain(identity.certificate, identity.key, _no_passphrase)
    except (OSError, ValueError) as error:
        what = "The client certificate" if identity is not None else "The file of --cacert"
        raise PathError(
            f"{identity or authorities}: {error}",
            error="proxy_configuration_error",
            public=f"{what} for this app cannot be used.",
            remedy="Run: iam-auth-proxy config check",
        ) from error
    return context


def _no_passphrase() -> str:
    """OpenSSL would ask on the terminal, from a thread that everybody waits for."""
    raise ValueError("the key is encrypted")


class _Attempt:
    """What a loop takes for the context of one handshake.

    :ivar made: the handshake, once it began.
    """

    def __init__(self, context: ssl.SSLContext, session: ssl.SSLSession | None) -> None:
        self.made: ssl.SSLObject | None = None
        self._context = context
        self._session = session

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
    ) -> ssl.SSLObject:
        """See :meth:`ssl.SSLContext.wrap_bio`."""
        self.made = self._context.wrap_bio(
            incoming, outgoing, server_side, server_hostname, self._session
        )
        return self.made

    def shown(self) -> bytes | None:
        """The peer's own certificate, verified or not, as DER; None where it showed none."""
        # SSLObject.get_unverified_chain is public since Python 3.13. Before, the private object
        # beneath has a method of that name, with results of another type.
        chain: Any = getattr(self.made, "get_unverified_chain", None)
        beneath: Any = getattr(self.made, "_sslobj", None)
        if chain is None and beneath is not None:
            chain = getattr(beneath, "get_unverified_chain", None)
        found = chain() if chain is not None else None
        if not found:
            return None
        first = found[0]
        return first if isinstance(first, bytes) else bytes(first.public_bytes(_DER))


_DER: Final = 2  # _ssl.ENCODING_DER


def ended_well(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer said that it ends (close_notify), at the end of its stream.

    Without TLS there is no telling. With it, an end that was not said may be anybody's who cut the
    connection (RFC 9112 section 9.8): what ends with the connection is not whole then.
    """
    made = transport.get_extra_info("ssl_object")
    if made is None:
        return True
    try:
        return not made.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False


def is_tls(transport: asyncio.BaseTransport) -> bool:
    """Whether the bytes of a transport are others than those of its socket."""
    return transport.get_extra_info("sslcontext") is not None
