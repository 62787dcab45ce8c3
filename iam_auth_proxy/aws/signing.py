"""Signing the identity (docs/protocol.md 3), with botocore's signer.

What is signed is what the other end rebuilds: the one function of the protocol makes it here, too,
around a signature that is then replaced.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from iam_auth_proxy.errors import AwsError, Malformed
from iam_auth_proxy.names import KeyArn, Origin
from iam_auth_proxy.protocol.proof import SignedIdentity
from iam_auth_proxy.protocol.signed_identity import SERVICE, SIGNED_HEADERS, rebuild

_NO_SIGNATURE: Final = "0" * 64


def sign_identity(
    signer: Credentials, key: KeyArn, origin: Origin, nonce: str, now: float
) -> SignedIdentity:
    """The proof that ``signer`` is who he is, for this origin and nonce.

    :param now: seconds since the epoch; the proof's date.
    :raises AwsError: the credentials are of no form that AWS gives.
    """
    date = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    try:
        blank = SignedIdentity(
            date=date,
            access_key_id=signer.access_key,
            session_token=signer.token or "",
            signature=_NO_SIGNATURE,
        )
    except Malformed as error:
        raise AwsError(
            f"the credentials cannot sign: {error}",
            public="Your AWS credentials are not of the form that AWS gives.",
            remedy="Look at the profile's access key and session token.",
        ) from error
    request = rebuild(blank, key, origin, nonce)
    headers = {name: value for name, value in request.headers if name in SIGNED_HEADERS.split(";")}
    url = request.url.removesuffix(f"&X-Amz-Signature={_NO_SIGNATURE}")
    # Not add_auth(): it would take the time from the machine's clock, and log what it signs.
    signed = AWSRequest(method="GET", url=url, headers=headers)
    signed.context["timestamp"] = date
    auth = SigV4Auth(signer, SERVICE, key.region)
    text = auth.string_to_sign(signed, auth.canonical_request(signed))
    return replace(blank, signature=auth.signature(text, signed))
