"""The PAC: which URLs a browser sends to the proxy. Pure.

Listed and routed hosts come to the proxy, everything else goes to the network directly. That is a
security property, not a convenience: what a browser loads through a proxy on loopback counts as
local to it, so that its Local Network Access protection is off for those pages. A host that is
listed never goes to the network directly, not even where the proxy is down: there is no ``DIRECT``
after our ``PROXY``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Protocol

MEDIA_TYPE = "application/x-ns-proxy-autoconfig"


class Reach(Protocol):
    """A host, or with ``wildcard`` the names of at least one label more below it."""

    @property
    def host(self) -> str:
        """Lower case; an IPv6 address in brackets."""
        ...

    @property
    def wildcard(self) -> bool:
        """Whether it stands for the names below it."""
        ...


def script(reaches: Iterable[Reach], proxy: str) -> str:
    """The script (ECMAScript 3, as old evaluators want it).

    Hosts decide, not schemes and ports: a browser tries https first where http was typed, and must
    not look for a host on its own that is reached through a tunnel.

    :param proxy: ``HOST:PORT`` of the proxy.
    """
    exact: set[str] = set()
    below: set[str] = set()
    for reach in reaches:
        # A browser gives FindProxyForURL an IPv6 address with or without brackets.
        (below if reach.wildcard else exact).add(reach.host.strip("[]"))
    return _SCRIPT.format(
        exact=json.dumps(dict.fromkeys(sorted(exact), 1)),
        below=json.dumps(sorted("." + host for host in below)),
        proxy=json.dumps(f"PROXY {proxy}"),
    )


_SCRIPT = """\
// From iam-auth-proxy: the apps that you trust go through it, everything else does not.
var exact = {exact};
var below = {below};
function FindProxyForURL(url, host) {{
  host = host.toLowerCase().replace(/^\\[|\\]$/g, "");
  if (Object.prototype.hasOwnProperty.call(exact, host)) return {proxy};
  for (var i = 0; i < below.length; i++) {{
    var end = below[i], at = host.length - end.length;
    if (at > 0 && host.substring(at) === end) return {proxy};
  }}
  return "DIRECT";
}}
"""
