"""Domains of one's own: what a wildcard may trust as a whole, and what a local CA may speak for."""

from __future__ import annotations

from typing import Final

from iam_auth_proxy.errors import Malformed
from iam_auth_proxy.names import Origin, parse_host

# Where anybody can have a name, a rule for the whole domain is a rule for anybody. The public
# suffix list would be 15,000 entries to keep fresh; this covers the slips that are likely: a
# registry's second level (`co.uk`), and domains that hosters share out.
_REGISTRY_LABELS: Final = frozenset(
    {
        "ac",
        "asn",
        "co",
        "com",
        "edu",
        "gen",
        "go",
        "gob",
        "gouv",
        "gov",
        "govt",
        "gv",
        "id",
        "ind",
        "ltd",
        "me",
        "mil",
        "muni",
        "ne",
        "net",
        "nhs",
        "nom",
        "or",
        "org",
        "plc",
        "police",
        "sch",
        "school",
        "web",
    }
)
_SHARED_DOMAINS: Final = (
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "amplifyapp.com",
    "api.aws",
    "appspot.com",
    "awsapprunner.com",
    "azurewebsites.net",
    "blogspot.com",
    "cloudapp.net",
    "cloudfront.net",
    "ddns.net",
    "duckdns.org",
    "dyndns.org",
    "eu.com",
    "elasticbeanstalk.com",
    "firebaseapp.com",
    "fly.dev",
    "github.io",
    "githubpreview.dev",
    "gitlab.io",
    "herokuapp.com",
    "lhr.life",
    "localtunnel.me",
    "netlify.app",
    "ngrok.app",
    "ngrok.dev",
    "ngrok.io",
    "ngrok-free.app",
    "nip.io",
    "no-ip.org",
    "on.aws",
    "onrender.com",
    "pages.dev",
    "r2.dev",
    "repl.co",
    "run.app",
    "sslip.io",
    "surge.sh",
    "trycloudflare.com",
    "uk.com",
    "us.com",
    "vercel.app",
    "web.app",
    "windows.net",
    "workers.dev",
    "xip.io",
)

_LONGEST: Final = 200
"""Characters: a file is named after the domain."""


def may_be_own(domain: str) -> bool:
    """Whether one organisation can have all names under it, for all that is known here.

    :param domain: as :func:`~iam_auth_proxy.names.parse_host` gives it.
    """
    labels = domain.split(".")
    registry = len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _REGISTRY_LABELS
    shared = any(f".{domain}".endswith(f".{each}") for each in _SHARED_DOMAINS)
    address = Origin("https", domain, 443).is_address
    return len(labels) > 1 and "" not in labels and not (registry or shared or address)


def parse_domain(text: str) -> str:
    """A domain that a local CA may speak for, in its one spelling.

    It stands for itself and for every name under it; ``*.DOMAIN`` is read as ``DOMAIN``, since no
    certificate authority can be held to less (RFC 5280 section 4.2.1.10).

    :raises Malformed: ``*``, a single label, a public suffix, an address, a loopback name, or what
        is no name at all.
    """
    bare = text.removeprefix("*.")
    if bare in ("", "*"):
        raise Malformed("a CA for every name there is would be the key to all of them")
    if "/" in bare or ":" in bare:
        raise Malformed("a domain is a name alone, without a scheme, a port or a path")
    host = parse_host(bare)
    if host == "localhost" or host.endswith(".localhost"):
        raise Malformed("names of this machine need no certificate")
    if not may_be_own(host) or len(host) > _LONGEST:
        raise Malformed("a CA needs a domain of your own, such as internal.example.com")
    return host
