"""What a failed connect is called (RFC 9209 section 2.3)."""

from __future__ import annotations

import errno

import pytest

from iam_auth_proxy.relay.failures import classify


@pytest.mark.parametrize(
    ("error", "token", "status"),
    [
        (OSError(errno.ECONNREFUSED, ""), "connection_refused", 502),
        (OSError(errno.ETIMEDOUT, ""), "connection_timeout", 504),
        (OSError(errno.ECONNRESET, ""), "connection_terminated", 502),
        (OSError(errno.ECONNABORTED, ""), "connection_terminated", 502),
        (OSError(errno.ENETUNREACH, ""), "destination_ip_unroutable", 502),
        (OSError(errno.EHOSTUNREACH, ""), "destination_ip_unroutable", 502),
        (OSError(errno.EPERM, ""), "destination_ip_unroutable", 502),
        (OSError(errno.EMFILE, ""), "proxy_internal_error", 502),
        (OSError("several"), "destination_unavailable", 502),
        (RuntimeError("uvloop's words"), "destination_unavailable", 502),
    ],
)
def test_classify(error: Exception, token: str, status: int) -> None:
    assert classify(error)[0::2] == (token, status)
