"""What the gate is told of a request, and what it answers. No framework, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from iam_auth_proxy.protocol.identity import Identity
from iam_auth_proxy.protocol.session import Session

# What front ends use to tell an app who calls, unsigned, so that a client could say it too: Apache
# and Authelia, oauth2-proxy and Traefik, Grafana's auth proxy, Kubernetes, authentik, Vouch, Kong,
# Pomerium, Envoy, and the load balancers and API gateways of the large clouds. None is taken from a
# front end in ``trusted_proxies`` either: an app behind a gate learns from the gate who calls.
IDENTITY_HEADERS: Final = frozenset(
    {
        "authuser",
        "auth-user",
        "remote-user",
        "remote-email",
        "remote-name",
        "remote-group",
        "remote-groups",
        "x-remote-user",
        "x-remote-uid",
        "x-remote-email",
        "x-remote-name",
        "x-remote-group",
        "x-remote-groups",
        "x-forwarded-user",
        "x-forwarded-email",
        "x-forwarded-groups",
        "x-forwarded-preferred-username",
        "x-forwarded-roles",
        "x-forwarded-client-cert",
        "client-cert",
        "client-cert-chain",
        "x-authenticated-user",
        "x-authenticated-email",
        "x-authenticated-groups",
        "x-authenticated-userid",
        "x-auth-user",
        "x-auth-user-id",
        "x-auth-username",
        "x-auth-email",
        "x-auth-groups",
        "x-consumer-id",
        "x-consumer-custom-id",
        "x-consumer-username",
        "x-credential-identifier",
        "x-forwarded-login",
        "x-forwarded-name",
        "x-forwarded-username",
        "x-proxy-user",
        "x-user",
        "x-user-id",
        "x-user-email",
        "x-user-name",
        "x-username",
        "x-email",
        "x-userinfo",
        "x-apigateway-api-userinfo",
        "x-endpoint-api-userinfo",
        "x-goog-authenticated-user-email",
        "x-goog-authenticated-user-id",
        "x-amzn-oidc-identity",
        "x-ms-client-principal",
        "x-ms-client-principal-id",
        "x-ms-client-principal-name",
        "cf-access-authenticated-user-email",
        "tailscale-user-login",
        "tailscale-user-name",
    }
)


# The same of those that say more than a name, the attributes of Shibboleth, mod_auth_mellon and
# mod_auth_openidc among them, and of a client certificate that a front end saw.
IDENTITY_PREFIXES: Final = (
    "impersonate-", "x-auth-request-", "x-authentik-", "x-pomerium-", "x-remote-extra-", "x-vouch-",
    "x-webauth-", "oidc-claim-", "shib-", "x-shib-", "mellon-", "x-mellon-", "ssl-client-",
    "x-ssl-client-",
)  # fmt: skip


def is_identity_header(name: str) -> bool:
    """Whether apps take such a field for the word of a front end on who calls.

    Underscores are read as dashes, since CGI and WSGI make one of both.
    """
    name = name.lower().replace("_", "-")
    return name in IDENTITY_HEADERS or name.startswith(IDENTITY_PREFIXES)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """One request.

    :ivar scheme: ``http`` or ``https``, as this server's own socket saw it.
    :ivar path: percent-decoded, as the framework routes it; starts with ``/``.
    :ivar query: as it came, without the ``?``.
    :ivar target: path and query as they came, for pages to show and for nothing else.
    :ivar headers: lower-case names; repeated fields are repeated.
    :ivar client: the peer's address; empty where there is none (a unix socket).
    :ivar body: of a request that :meth:`Gate.takes_body` is about; it holds a proof.
    :ivar routed: what the app itself routes by, where that is only a part of ``path``; None: all.
    :ivar socket: whether the server itself says that this opens a WebSocket.
    """

    method: str
    scheme: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    client: str = ""
    target: str = "/"
    routed: str | None = None
    body: bytes = field(default=b"", repr=False)
    socket: bool = False

    @property
    def opens_websocket(self) -> bool:
        """Whether the app may make a WebSocket of it: any sign of a handshake counts.

        Apps and servers differ in which of them they look at, and front ends in which they keep.
        """
        return (
            self.socket
            or any("websocket" in value.lower() for value in self.all("upgrade"))
            or any(name.startswith("sec-websocket-") for name, _ in self.headers)
        )

    def all(self, name: str) -> list[str]:
        """Every value of the field."""
        return [value for field, value in self.headers if field == name]

    def first(self, name: str) -> str:
        """The first value of the field, or an empty text."""
        return next((value for field, value in self.headers if field == name), "")


@dataclass(frozen=True, slots=True)
class Allow:
    """The request may go on to the app.

    :ivar identity: who it is, and ``session`` since and until when; both None only on a public
        path.
    :ivar set_cookies: values of Set-Cookie fields for the app's answer, where it may carry them
        (:mod:`~iam_auth_proxy.server.caching`).
    :ivar hidden: fields of the request that are the gate's and not the app's, besides identity
        headers: lower case, with dashes.
    """

    identity: Identity | None = None
    session: Session | None = None
    set_cookies: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()

    def hides(self, name: str) -> bool:
        """Whether a field of the request must not reach the app."""
        return is_identity_header(name) or name.lower().replace("_", "-") in self.hidden


@dataclass(frozen=True, slots=True)
class Reply:
    """The gate's own answer. The adapter adds Content-Length."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""


Answer = Allow | Reply
