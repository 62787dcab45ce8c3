"""An app's refusal for want of a client certificate, where the proxy withheld the person's.

Pure. There is a certificate, but the proxy may not show it for this request: another page caused
it, or the browser does not say who did (:attr:`~.decide.Ruling.certified`).
"""

from __future__ import annotations

from typing import Final

from iam_auth_proxy.errors import PathError
from iam_auth_proxy.proxy.decisions.clicks import link_to, navigates
from iam_auth_proxy.relay.exchange import Exchange

# In TLS 1.3 the refusal comes when the client is done, and is lost where the connection is reset.
_REFUSALS: Final = ("tls_alert_received", "connection_terminated")


def refused(exchange: Exchange, error: PathError) -> tuple[PathError, str]:
    """The failure in the words of such a request, and a link that opens the page, if any does.

    :param error: where it is no refusal of the app's, it is given back as it is.
    """
    if error.error not in _REFUSALS:
        return error, ""
    request = exchange.request
    link = link_to(request, exchange.origin) if navigates(request) else ""
    said = PathError(
        str(error),
        error=error.error,
        status=error.http_status,
        public="The app ended the connection, for which your client certificate was not shown.",
        remedy="Another site led here. Open it only if you meant to."
        if link
        else "It is not known who asked for this. In a browser that does not say so, open the app "
        'under an alias: https = "alias" in its [[app]].',
    )
    return said, link
