"""The names of our cookies, and how they are read from a request."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, Literal

from iam_auth_proxy.names import DEFAULT_PORTS, Origin


class Repeated(Enum):
    """What :func:`read_cookie` answers where there are several cookies of one name."""

    REPEATED = "repeated"


REPEATED: Final = Repeated.REPEATED


def cookie_name(origin: Origin, base: str) -> str:
    """The name of an origin's cookie ``base``, as it stands in Cookie and Set-Cookie.

    ``__Host-`` on https: no sibling name and no plain-http answer can then set it (RFC 6265bis
    section 4.1.3.2). Cookies ignore ports, so off the default ports the port is part of the name.
    """
    prefix = "__Host-" if origin.scheme == "https" else ""
    suffix = "" if origin.port == DEFAULT_PORTS[origin.scheme] else f"-{origin.port}"
    return f"{prefix}{base}{suffix}"


def read_cookie(values: Sequence[str], name: str) -> str | Literal[Repeated.REPEATED] | None:
    """The value of the cookie ``name`` in a request's Cookie fields.

    :return: None where there is none, and :data:`REPEATED` where there are several: somebody
        planted one, there is no telling which, and the caller clears them.
    """
    found: list[str] = []
    for pair in ";".join(values).split(";"):
        key, separator, value = pair.strip(" \t").partition("=")
        if separator and key.rstrip(" \t") == name:
            found.append(value.strip(" \t"))
    if len(found) > 1:
        return REPEATED
    return found[0] if found else None
