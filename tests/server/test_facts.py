"""Which header fields speak of an identity."""

from __future__ import annotations

import pytest

from iam_auth_proxy.server.facts import is_identity_header


@pytest.mark.parametrize(
    "name",
    ["Remote-User", "REMOTE_USER", "X-Forwarded-User", "x_auth_request_email", "X-WebAuth-User",
     "X-WebAuth-Groups", "X-Remote-Uid", "X-Forwarded-Roles", "X-Auth-User-Id", "X-Userinfo",
     "X-Apigateway-Api-Userinfo", "X-Endpoint-API-UserInfo", "X-Forwarded-Client-Cert",
     "X-SSL-Client-S-DN", "X_SSL_CLIENT_CN", "X-SSL-Client-Verify", "SSL_CLIENT_S_DN",
     "SSL-Client-Verify", "Client-Cert", "Client-Cert-Chain", "OIDC_CLAIM_sub",
     "OIDC-CLAIM-email", "Shib-Identity-Provider", "X-Shib-Mail", "Mellon-NAME_ID", "X_Mellon_uid"],
)  # fmt: skip
def test_identity(name: str) -> None:
    assert is_identity_header(name)


@pytest.mark.parametrize(
    "name",
    ["Host", "Cookie", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-SSL", "X-SSL",
     "X-Requested-With", "User-Agent", "X-WebAuthn-Token", "OIDC-State", "Client-Cert-Chain-Length",
     "X-Amzn-Trace-Id", "X-CSRF-Token", "Authorization", "X-Client-Version", "X-Shipment"],
)  # fmt: skip
def test_not_identity(name: str) -> None:
    assert not is_identity_header(name)
