"""The request inside a signed identity, before it is signed."""

from __future__ import annotations

from iam_auth_proxy.names import KeyArn, Origin, sts_host
from iam_auth_proxy.protocol.signed_identity import NONCE_HEADER, ORIGIN_HEADER, StsRequest


def unsigned(key: KeyArn, origin: Origin, nonce: str) -> StsRequest:
    """What docs/protocol.md 3 says, written out once more: the headers are those to be signed."""
    host = sts_host(key)
    headers = (("host", host), (NONCE_HEADER, nonce), (ORIGIN_HEADER, str(origin)))
    return StsRequest(host, "/?Action=GetCallerIdentity&Version=2011-06-15", headers)
