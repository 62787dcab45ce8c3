"""What failures of the path to an origin are called: error tokens, sentences, remedies.

Tokens are those of ``Proxy-Status`` (RFC 9209 section 2.3). The sentences may be read by anybody,
scripts of the origin included; what a library said goes to the log alone.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.relay.via import Target, Via

_UNROUTABLE: Final = frozenset(
    {
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.EADDRNOTAVAIL,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        errno.EAFNOSUPPORT,
        errno.EACCES,  # a local firewall says no
        errno.EPERM,
    }
)


def printable(text: str, longest: int = 80) -> str:
    """What others said, as it may stand in a sentence: one line, nothing that turns or hides it."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def classify(error: Exception) -> tuple[str, str, int]:
    """(RFC 9209 token, what happened, HTTP status) of a connect that failed."""
    if isinstance(error, ConnectionRefusedError):
        return "connection_refused", "refused the connection", 502
    if isinstance(error, TimeoutError):
        return "connection_timeout", "did not answer", 504
    if isinstance(error, ConnectionError):
        return "connection_terminated", "closed the connection at once", 502
    if isinstance(error, OSError):
        if error.errno in _UNROUTABLE:
            return "destination_ip_unroutable", "cannot be reached from this network", 502
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return "proxy_internal_error", "was not tried: too many open files", 502
    # Several addresses that failed in different ways have no errno in common.
    return "destination_unavailable", "could not be reached", 502


def unreachable(what: str, error: Exception) -> PathError:
    """No address of ``what`` (host:port) took the connection."""
    token, words, status = classify(error)
    return PathError(
        f"{what}: {error}",
        error=token,
        status=status,
        public=f"{what} {words}.",
        remedy="Check that the app is running and that this network leads to it.",
        for_anybody=True,
    )


def unresolved(host: str, error: OSError | None, via: Via | None = None) -> PathError:
    """The name has no addresses here, or nobody to ask answered.

    :param via: the proxy that is asked for an address, and not for the name.
    """
    remedy = "Check the name, and whether it needs a VPN, --ssh-bastion or --socks-proxy."
    if via is not None:
        remedy = (
            f"Check the name; with {via.scheme}:// it is resolved here. If the far end alone knows "
            f"it, write socks5h:// for the proxy at {via.host_port}."
        )
    busy = error is not None and error.errno == socket.EAI_AGAIN
    return PathError(
        f"{host}: {error or 'no addresses'}",
        error="dns_timeout" if busy else "dns_error",
        status=504 if busy else 502,
        public=f"The name {host} does not resolve"
        + (": the resolver did not answer." if busy else " on this network."),
        remedy=remedy,
        for_anybody=True,
    )


def prohibited(target: Target, where: str, reason: str) -> PathError:
    """The target leads to an address that is not dialled; ``reason`` ends "ADDRESS is …"."""
    leads = where if where == target.host else f"{target.host} leads to {where}, which"
    return PathError(
        f"{target.host_port}: {where} is {reason}",
        error="destination_ip_prohibited",
        status=403,
        public=f"{leads} is {reason}: the proxy does not go there.",
        remedy=f"If it should, add --allow-target {target.host_port}, or list it in allow_targets.",
        for_anybody=True,
    )


def loops_back(target: Target) -> PathError:
    """The target is one of our own listeners."""
    return PathError(
        f"{target.host_port} is this proxy",
        error="proxy_loop_detected",
        status=403,
        public=f"{target.host_port} is this proxy itself.",
        remedy="Check --connect-to, the upstream proxy and the hosts file.",
        for_anybody=True,
    )


def no_route(host: str, name: str) -> PathError:
    """A host that is reached through a route which nobody defined. It is never reached directly."""
    return PathError(
        f"{host} goes through {name}, and there is no [via.{name}]",
        error="proxy_configuration_error",
        public=f"{host} is reached by the route [via.{name}], and there is none of that name.",
        remedy=f"Define [via.{name}] in config.toml, then run: iam-auth-proxy config check",
        for_anybody=True,
    )


def start_remedy(via: Via) -> str:
    """What to do about a tunnel that is not there."""
    if via.tunnel is not None:
        return via.tunnel.remedy
    if via.is_local and via.scheme != "http":
        return f"Start it, for example with: ssh -D {via.port} BASTION"
    return f"Check that the proxy at {via.host_port} is running and can be reached."


def greet_remedy(via: Via) -> str:
    """What to do about something that takes connections, and does not greet as a SOCKS proxy."""
    if via.tunnel is not None:
        return via.tunnel.remedy
    return f"Check that a SOCKS proxy listens at {via.host_port}, and no other program."


def tunnel_down(via: Via, words: str, token: str, error: Exception) -> PathError:
    """The upstream proxy itself could not be reached."""
    return PathError(
        f"{via}: {error}",
        error=token,
        public=f"The tunnel is down ({via.host_port} {words}).",
        remedy=start_remedy(via),
        for_anybody=via.tunnel is None,
    )


def closed_before_greeting(via: Via, target: Target, error: Exception) -> PathError:
    """It never said that it is a SOCKS proxy: nothing can be told of the destination yet."""
    public = f"{via.host_port} closed the connection and did not answer as a SOCKS proxy."
    if via.tunnel is not None:  # whose name, which holds a user's, is not for every page
        public = f"The ssh tunnel to {target.host_port} closed the connection."
    return PathError(
        f"{via}: closed before its greeting ({error})",
        error="proxy_configuration_error",
        public=public,
        remedy=greet_remedy(via),
        for_anybody=via.tunnel is None,
    )


def closed_without_answer(via: Via, target: Target, error: Exception) -> PathError:
    """What ``ssh -D`` does alike for a refused, an unreachable and an unknown destination."""
    says_why = "ssh's own output says why." if via.is_local else "The proxy's own log says why."
    return PathError(
        f"{target.host_port} through {via}: closed without an answer ({error})",
        error="destination_unavailable",
        public=f"The tunnel is up, but it could not reach {target.host_port}.",
        remedy=says_why,
        for_anybody=True,
    )


def as_said(via: Via, error: PathError, words: str) -> PathError:
    """What the proxy's own tunnel made of a destination, in the words of the program that it is."""
    return PathError(
        f"{error}; {via} said: {words or 'nothing'}",
        error=error.error,
        status=error.http_status,
        public=error.public,
        remedy=f"ssh said: {words}" if words else error.remedy,
    )


# RFC 1928 section 6 and the SOCKS4 protocol -> (RFC 9209 token, HTTP status).
_SOCKS_REPLIES: Final = {
    2: ("destination_ip_prohibited", 502),
    3: ("destination_ip_unroutable", 502),
    4: ("destination_ip_unroutable", 502),
    5: ("connection_refused", 502),
    6: ("connection_timeout", 504),
    7: ("proxy_configuration_error", 502),
    8: ("proxy_configuration_error", 502),
    0x5C: ("proxy_configuration_error", 502),
    0x5D: ("proxy_configuration_error", 502),
}


def socks_refused(via: Via, target: Target, words: str, code: int | None) -> PathError:
    """The SOCKS server said no; ``code`` is its reply, None where it never came to one."""
    if code is None:  # before the question was asked: login, or not SOCKS at all
        return not_that_proxy(via, words)
    token, status = _SOCKS_REPLIES.get(code, ("destination_unavailable", 502))
    return PathError(
        f"{target.host_port} through {via}: {words} (code {code})",
        error=token,
        status=status,
        public=f"The tunnel is up, but {target.host_port} could not be reached through it.",
        remedy="Check the app's name and port; they are resolved and reached from the far end.",
        for_anybody=True,
    )


def not_that_proxy(via: Via, why: str) -> PathError:
    """The upstream proxy does not speak this protocol, or did not take our login."""
    name = "HTTP CONNECT" if via.scheme == "http" else via.scheme.upper().rstrip("H")
    return PathError(
        f"{via}: {why}",
        error="proxy_configuration_error",
        public=f"{via.host_port} does not take us as a client of {name}.",
        remedy="Check the scheme of --socks-proxy, its user, and IAM_AUTH_PROXY_SOCKS_PASSWORD.",
        for_anybody=True,
    )


def http_refused(via: Via, target: Target, status: int) -> PathError:
    """The upstream proxy answered CONNECT with a status other than 2xx."""
    if status in (401, 407):
        return not_that_proxy(via, f"CONNECT was answered with {status}")
    denied, slow = status == 403, status == 504
    token = "connection_timeout" if slow else "destination_unavailable"
    return PathError(
        f"{target.host_port} through {via}: CONNECT was answered with {status}",
        error="http_request_denied" if denied else token,
        status=504 if slow else 502,
        public=f"The proxy at {via.host_port} answered {status} for {target.host_port}.",
        remedy="Ask whoever runs it." if denied else "Check the app's name and port.",
        for_anybody=True,
    )
