"""Service tokens on the requests of ``requests`` and ``httpx``, neither of which is needed here::

    issuer = open_issuer("alias/authnz", Caller("ci"), "app-production")
    requests.get(url, auth=ServiceTokenAuth(issuer, "https://app.internal"))
    httpx.Client(auth=ServiceTokenAuth(issuer, "https://app.internal"))
    httpx.AsyncClient(auth=for_httpx(ServiceTokenAuth(issuer, "https://app.internal")))

A token is whoever it is from, to whoever holds it, so it goes to one origin and to no other, in an
Authorization field, which both libraries take off where a redirect leads elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from iam_auth_proxy.errors import ConfigError, Malformed, Problem
from iam_auth_proxy.names import Origin, parse_authority, parse_origin
from iam_auth_proxy.tokens.issuer import Issuer

if TYPE_CHECKING:
    import httpx


class _Request(Protocol):
    """What requests' PreparedRequest and httpx's Request have in common."""

    @property
    def url(self) -> Any: ...

    @property
    def headers(self) -> MutableMapping[str, Any]: ...


R = TypeVar("R", bound=_Request)


class ServiceTokenAuth:
    """``auth=`` of requests and of httpx's synchronous client. A new token is made in time.

    :param origin: where the token may go. Requests to other origins pass without it.
    :param allow_http: send it without encryption, where everybody on the way can take it.
    :param clock: seconds since the epoch.
    :raises ConfigError: an http origin without ``allow_http``, or no origin.
    """

    def __init__(
        self,
        issuer: Issuer,
        origin: str | Origin,
        *,
        allow_http: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            self._origin = origin if isinstance(origin, Origin) else parse_origin(origin)
        except Malformed as error:
            raise ConfigError([Problem("origin of ServiceTokenAuth", str(error))]) from error
        if self._origin.scheme != "https" and not allow_http:
            text = f"{self._origin} is not encrypted. To send it all the same: allow_http=True"
            raise ConfigError([Problem("origin of ServiceTokenAuth", text)])
        self._issuer = issuer
        self._clock = clock

    def __call__(self, request: R) -> R:
        """Put the token on a request. May block while KMS is asked.

        :raises AwsError: there is no token: KMS says no.
        :raises AwsUnavailable: the same, KMS does not answer.
        """
        if self.concerns(str(request.url)):
            request.headers["Authorization"] = self._issuer.token(self._clock()).basic()
        return request

    def concerns(self, url: str) -> bool:
        """Whether the token may go there."""
        parts = urlsplit(url)
        scheme = parts.scheme.lower()
        if scheme != self._origin.scheme:
            return False
        try:
            return parse_authority(parts.netloc.rpartition("@")[2], scheme) == self._origin
        except Malformed:
            return False


def for_httpx(auth: ServiceTokenAuth) -> httpx.Auth:
    """The same for httpx's both clients: KMS is asked off the event loop."""
    import httpx

    class Auth(httpx.Auth):
        def sync_auth_flow(
            self, request: httpx.Request
        ) -> Generator[httpx.Request, httpx.Response, None]:
            yield auth(request)

        async def async_auth_flow(
            self, request: httpx.Request
        ) -> AsyncGenerator[httpx.Request, httpx.Response]:
            yield await asyncio.to_thread(auth, request)

    return Auth()
