"""Which identity an app would see. Asks STS, once for each profile, and nothing of the app."""

from __future__ import annotations

from dataclasses import dataclass

from iam_auth_proxy.aws.base import CallerIdentity, Principals
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.proxy.decisions.rules import STRENGTH, AppTrust
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.https.aliases import url_of


@dataclass(frozen=True, slots=True)
class Whoami:
    """Who one is, somewhere.

    :ivar origin: of the app; empty: nowhere in particular.
    :ivar profile: the AWS profile that signs in; empty: the default one.
    :ivar proof: what the app would be given: what it took before, else the strongest allowed.
    :ivar key: the ARN of the key that it is sealed for, once that is known.
    :ivar alias: where a browser opens the app, if that is not its own address.
    :ivar token: for whom the service token is that goes with a program's requests; empty: none.
    """

    identity: CallerIdentity
    profile: str = ""
    origin: str = ""
    proof: str = ""
    key: str = ""
    alias: str = ""
    token: str = ""

    def document(self) -> dict[str, str]:
        """The same as a JSON object."""
        return {
            "origin": self.origin,
            "arn": self.identity.arn,
            "account": self.identity.account,
            "user_id": self.identity.user_id,
            "profile": self.profile,
            "proof": self.proof,
            "key": self.key,
            "alias": self.alias,
            "service_token": self.token,
        }


def whoami(
    principals: Principals,
    trust: Trust,
    origin: Origin | None,
    now: float,
    own_address: str = "",
) -> Whoami:
    """Blocks while STS is asked.

    :param origin: None: whoever signs in where no app says otherwise.
    :param now: seconds since the epoch.
    :param own_address: ``HOST:PORT`` of the proxy; empty: no browser reaches it.
    :raises NotTrusted: the app would see nobody.
    :raises AwsError: AWS knows nobody either, or there is no proof for this app.
    :raises AwsUnavailable: AWS did not answer.
    """
    if origin is None:
        return Whoami(principals.of().identity(now))
    trust.refresh()
    app = trust.app(origin)
    if app is None:
        raise trust.untrusted(origin, asked=False)
    proof = _proof(app)
    principal = principals.of(app.profile)
    if proof is ProofKind.SESSION_CREDENTIALS:
        identity = principal.session_identity(now)
    else:
        identity = principal.identity(now)
    key = app.pin.key or (app.keys[0] if len(app.keys) == 1 else "")
    alias = url_of(app.alias, own_address)
    token = app.service_token.to if app.service_token is not None else ""
    return Whoami(identity, app.profile, str(origin), str(proof), key, alias, token)


def _proof(app: AppTrust) -> ProofKind:
    before = app.pin.proof
    if before is not None and before in app.proofs:
        return before
    return next(kind for kind in STRENGTH if kind in app.proofs)
