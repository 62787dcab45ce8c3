"""The request inside a signed identity: GetCallerIdentity, for one origin and one nonce.

The person's proxy signs it (SigV4 in the query), the app's server has STS verify it. The proof
itself carries only what the server cannot know, see
:class:`~iam_auth_proxy.protocol.proof.SignedIdentity`; everything else is rebuilt here from the
server's own key, origin and nonce. So no URL, host, header, action or parameter that came from
outside is ever parsed or sent on, and a signature over anything else than exactly this request does
not verify. Both headers are in SignedHeaders: STS ignores every header that is not.

Source: IAM User Guide, "Create a signed AWS API request"; STS API reference, GetCallerIdentity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from iam_auth_proxy.names import KeyArn, Origin, sts_host
from iam_auth_proxy.protocol.nonce import check_nonce
from iam_auth_proxy.protocol.proof import SignedIdentity

ORIGIN_HEADER: Final = "x-iam-auth-origin"
NONCE_HEADER: Final = "x-iam-auth-nonce"
SIGNED_HEADERS: Final = f"host;{NONCE_HEADER};{ORIGIN_HEADER}"
ALGORITHM: Final = "AWS4-HMAC-SHA256"
SERVICE: Final = "sts"
EXPIRES: Final = 300
"""Seconds, as X-Amz-Expires says. STS ignores it and takes 15 minutes; the server checks itself."""

_ACTION = "Action=GetCallerIdentity&Version=2011-06-15"


@dataclass(frozen=True, slots=True)
class StsRequest:
    """A GET of STS's, without a body.

    :param host: of the regional endpoint; https, no port.
    :param target: path and query, in origin-form. It holds the session token and the signature.
    :param headers: all that are sent, names in lower case.
    """

    host: str
    target: str = field(repr=False)
    headers: tuple[tuple[str, str], ...]

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"https://{self.host}{self.target}"


def rebuild(proof: SignedIdentity, key: KeyArn, origin: Origin, nonce: str) -> StsRequest:
    """The request that ``proof`` is the signature of, if it is any good.

    Whoever signs makes it with this function, too, around a signature that is then replaced.

    :param key: the server's own KMS key; ``origin`` and ``nonce`` are the server's own, too.
    :raises Malformed: the nonce is none, or the key's region is unknown.
    """
    host = sts_host(key)
    scope = f"{proof.access_key_id}/{proof.date[:8]}/{key.region}/{SERVICE}/aws4_request"
    parameters = [
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", scope),
        ("X-Amz-Date", proof.date),
        ("X-Amz-Expires", str(EXPIRES)),
        ("X-Amz-SignedHeaders", SIGNED_HEADERS),
    ]
    if proof.session_token:
        parameters.append(("X-Amz-Security-Token", proof.session_token))
    parameters.append(("X-Amz-Signature", proof.signature))
    query = "&".join(f"{name}={quote(value, safe='-._~')}" for name, value in parameters)
    headers = (
        ("host", host),
        (NONCE_HEADER, check_nonce(nonce)),
        (ORIGIN_HEADER, str(origin)),
        ("accept", "application/json"),
    )
    return StsRequest(host, f"/?{_ACTION}&{query}", headers)
