"""The proxy's half and the gate's half joined in memory: no port, no AWS.

Each side's own code reads what the other's wrote; nothing here spells the wire again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from iam_auth_proxy.aws.base import CallerIdentity, Encrypted, Seen
from iam_auth_proxy.names import KeyArn, KeyReference, Origin, parse_origin
from iam_auth_proxy.protocol import challenge as challenges
from iam_auth_proxy.protocol.challenge import Challenge
from iam_auth_proxy.protocol.proof import ProofKind, SessionCredentials, SignedIdentity
from iam_auth_proxy.proxy.signin import sealing
from iam_auth_proxy.proxy.signin.appside import AppSide
from iam_auth_proxy.proxy.signin.handover import Challenged
from iam_auth_proxy.relay.exchange import Fetched, RequestHead
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Allow, Reply
from tests.server.conftest import ACCOUNT, ANN, KEY, NOW, ORIGIN, SECRET, FakeAws, request

APP = parse_origin(ORIGIN)
OTHER = parse_origin("http://other.test")


@dataclass
class Ann:
    """A principal whose AWS is the gate's."""

    aws: FakeAws

    def identity(self, now: float) -> CallerIdentity:
        return self.aws.people[self.aws.credentials(ANN).access_key_id]

    session_identity = identity

    def seen(self) -> Seen | None:
        return None

    def sign_identity(self, key: KeyArn, origin: Origin, nonce: str, now: float) -> SignedIdentity:
        return self.aws.signed(nonce, origin=str(origin), key=str(key), at=now)

    def session_credentials(self, now: float) -> SessionCredentials:
        return self.aws.credentials(ANN, expires=now + 900)

    def encrypt(
        self, key: str, plaintext: bytes, context: Mapping[str, str], now: float
    ) -> Encrypted:
        return self.aws.encrypt(key, plaintext, context)


@dataclass
class Trusting:
    """Everything, with one kind of proof."""

    kind: ProofKind

    def choose(self, origin: Origin, challenge: Challenge) -> ProofKind:
        return self.kind

    def check_key(self, origin: Origin, key: KeyReference, account: str, kind: ProofKind) -> None:
        assert (key.text, account) == (KEY, ACCOUNT)

    def check_path(self, origin: Origin, path: str) -> None: ...

    def check_used(self, origin: Origin, arn: str, account: str, kind: ProofKind) -> None: ...


@dataclass
class Wire:
    """Takes the proxy's requests to the gate, and its answers back."""

    gate: Gate

    async def __call__(
        self, origin: Origin, head: RequestHead, body: bytes, **_: object
    ) -> Fetched:
        headers = [(n.decode().lower(), v.decode()) for n, v in head.headers if n != b"Host"]
        asked = request(
            head.target.decode(),
            method=head.method.decode(),
            host=origin.authority,
            headers=headers,
        )
        reply = self.gate.check(replace(asked, body=body), NOW)
        assert isinstance(reply, Reply)
        return Fetched(
            reply.status, [(n.encode(), v.encode()) for n, v in reply.headers], reply.body
        )


@pytest.mark.parametrize(
    ("bound", "kind"),
    [
        (False, ProofKind.SESSION_CREDENTIALS),
        (True, ProofKind.SESSION_CREDENTIALS),
        (True, ProofKind.SIGNED_IDENTITY),
    ],
)
@pytest.mark.parametrize("sealed_for", [APP, OTHER])
async def test_a_sign_in(bound: bool, kind: ProofKind, sealed_for: Origin) -> None:
    aws = FakeAws()
    gate = Gate(
        kms=aws, sts=aws, kms_key=KEY, secret_key=SECRET, accounts=[ACCOUNT], origins=[ORIGIN],
        legacy=True, proofs=[each.value for each in ProofKind],
    )  # fmt: skip
    app = AppSide(Wire(gate), lambda: NOW)
    refused = await Wire(gate)(APP, RequestHead(b"GET", b"/private", []), b"")
    challenge = challenges.parse(refused.headers)
    assert challenge is not None
    if not bound:
        challenge = replace(challenge, bound=None)
    challenged = Challenged.of(challenge, refused.headers, APP)
    sealed = sealing.seal(Ann(aws), Trusting(kind), sealed_for, challenge, lambda _: (), NOW)
    done = await app.hand_over(APP, challenged, sealed, "/private", profile="", identified=False)
    if bound and sealed_for is OTHER:
        assert (done.granted, app.rejected) == (None, 1), "a proof is good at one origin"
    else:
        assert done.granted is not None
        assert dict(done.answer.headers)[b"Location"] == b"/private"
        cookies = "; ".join(cookie.pair.decode() for cookie in done.granted.cookies)
        allowed = gate.check(request("/private", cookie=cookies), NOW)
        assert isinstance(allowed, Allow)
        assert allowed.identity is not None
        assert allowed.identity.arn == ANN
    gate.close()
