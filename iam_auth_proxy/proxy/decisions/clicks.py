"""Pages that a click of the person's opens: which requests are for one, and the link. Pure.

A page of ours in the app's place shows the link. A click on it makes the same request once more, as
one of the app's own origin, which no other page can cause (see :mod:`.pages.stop`).
"""

from __future__ import annotations

import re
from typing import Final

from iam_auth_proxy.names import Origin
from iam_auth_proxy.relay.exchange import RequestHead

SAFE: Final = (b"GET", b"HEAD")

# What may stand in a link as it stands in a request line.
_TARGET = re.compile(rb"/[\x21-\x7e]*")


def navigates(request: RequestHead) -> bool:
    """A page in a window or tab of its own, as a browser says it.

    The app's service worker, where it passes such a request on, says no destination.
    """
    return request.get(b"sec-fetch-mode") == b"navigate" and request.get(b"sec-fetch-dest") in (
        b"document",
        b"empty",
    )


def link_to(request: RequestHead, origin: Origin) -> str:
    """The URL of the request; empty where a link cannot ask the same."""
    if request.method not in SAFE or not _TARGET.fullmatch(request.target):
        return ""
    return str(origin) + request.target.decode("ascii")
