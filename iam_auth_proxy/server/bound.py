"""The bound hand-over: ``POST /auth`` with a proof for this origin and this nonce (section 3).

The order of the checks is the defence. What costs nothing comes first: where the request says it is
from, its grammar, and a nonce that this app signed for this origin and gave to whoever sends it.
Nobody gets to KMS without one, and with one only a few times. The nonce is spent last, by
insert-if-absent, when the proof held.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from iam_auth_proxy.aws.base import CallerIdentity, Sts
from iam_auth_proxy.errors import BadNonce, Malformed, Replayed, StaleToken, WeakProof, WrongOrigin
from iam_auth_proxy.names import Origin
from iam_auth_proxy.protocol import challenge as challenges
from iam_auth_proxy.protocol import envelope, handoff, nonce, proof, signed_identity
from iam_auth_proxy.protocol.cookies import read_cookie
from iam_auth_proxy.protocol.handoff import BoundHandoff
from iam_auth_proxy.protocol.keyring import Rings
from iam_auth_proxy.protocol.nonce import Nonce
from iam_auth_proxy.protocol.proof import SignedIdentity
from iam_auth_proxy.server.contexts import Contexts
from iam_auth_proxy.server.facts import RequestFacts
from iam_auth_proxy.server.home import Home
from iam_auth_proxy.server.replay import Stores, digest
from iam_auth_proxy.server.settings import Settings
from iam_auth_proxy.server.verifier import Proved, Verifier, spend

TRIES: Final = 5
"""How often one nonce gets to AWS, be it at once or one after the other."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A hand-over whose nonce is good, so that it is worth asking AWS."""

    handoff: BoundHandoff
    nonce: Nonce


class BoundSignIn:
    """Gives out nonces and checks what comes back. ``now`` is in seconds since the epoch."""

    def __init__(
        self,
        settings: Settings,
        rings: Rings,
        contexts: Contexts,
        verifier: Verifier,
        stores: Stores,
    ) -> None:
        self._settings = settings
        self._rings = rings
        self._contexts = contexts
        self._verifier = verifier
        self._stores = stores
        self.on: Final = bool(settings.origins)
        """Without origins there is nothing to bind to: what Host says is the visitor's word."""

    def offer(self, origin: Origin, now: float) -> challenges.Bound:
        """What a challenge at ``origin`` says besides, with a fresh nonce."""
        epoch, random = self._contexts.epoch(now), secrets.token_bytes(nonce.RANDOM_BYTES)
        text = nonce.issue(self._rings.at(now), origin, epoch, now, random)
        return challenges.Bound(self._settings.proofs, text, self._settings.path)

    # -- what needs no AWS -------------------------------------------------------------------------

    def read(self, facts: RequestFacts, origin: Origin, now: float) -> Checked:
        """What the request hands over, if it is from here and its nonce is good.

        :raises WrongOrigin: another site sends it, or its nonce is another origin's.
        :raises Malformed: it is outside the grammar.
        :raises Refused: see :meth:`check`.
        """
        if facts.all("origin") not in ([], [str(origin)]):
            raise WrongOrigin("a sign-in with a foreign Origin", public=_FOREIGN)
        if facts.all("sec-fetch-site") not in ([], ["same-origin"]):
            raise WrongOrigin("a sign-in with a foreign Sec-Fetch-Site", public=_FOREIGN)
        if [value.lower() for value in facts.all("content-type")] != [handoff.FORM_TYPE]:
            raise Malformed(f"a sign-in that is not of type {handoff.FORM_TYPE}")
        if facts.all("content-encoding"):
            raise Malformed("a sign-in with a Content-Encoding")
        if facts.query:
            raise Malformed("a sign-in by POST that has a query")
        found = handoff.parse_form(facts.body, auth_path=self._settings.path)
        return self.check(found, facts.all("cookie"), origin, now)

    def check(
        self, found: BoundHandoff, cookies: Sequence[str], origin: Origin, now: float
    ) -> Checked:
        """Whether it may be asked of AWS.

        :param cookies: the values of the request's Cookie fields.
        :raises BadNonce: the nonce was not given to whoever sends it, is not of ours, or has been
            tried too often; NonceKeyUnknown where its key is not in the ring.
        :raises WrongOrigin: the nonce is another origin's.
        :raises Expired: the nonce is too old.
        :raises WeakProof: the kind of proof is not taken here.
        :raises Replayed: the nonce is spent.
        """
        cookie = read_cookie(cookies, nonce.cookie_name(origin))
        if not isinstance(cookie, str):
            raise BadNonce("a sign-in without the nonce's cookie, or with several")
        if not hmac.compare_digest(cookie.encode("utf-8", "replace"), found.nonce.encode()):
            raise BadNonce("the nonce is not that of the cookie")
        opened = nonce.open_(found.nonce, self._rings.at(now), origin=origin, now=now)
        if found.proof not in self._settings.proofs:
            raise WeakProof(f"{found.proof.value} is not taken here")
        if self._stores.proofs.seen(digest("nonce", found.nonce), now):
            raise Replayed("the nonce was used before")
        if self._stores.tries.seen(_try(found.nonce, TRIES), now):
            raise BadNonce(_TOO_OFTEN)
        return Checked(found, opened)

    # -- what does ---------------------------------------------------------------------------------

    def prove(self, checked: Checked, origin: Origin, home: Home, now: float) -> Proved:
        """Open the proof and have STS check it. Blocks.

        :raises Refused: the proof is not good, or its identity may not come in.
        :raises Malformed: what was sealed is not a proof.
        :raises AwsUnavailable: it could not be checked.
        """
        self._take_try(checked, now)
        found = checked.handoff
        proved = proof.load_proof(self._open(checked, origin, home, now), found.proof)
        proved.check(now)
        if isinstance(proved, SignedIdentity):
            request = signed_identity.rebuild(proved, home.key, origin, found.nonce)

            def ask(sts: Sts) -> CallerIdentity:
                return sts.check_signed_identity(request)
        else:
            credentials = proved

            def ask(sts: Sts) -> CallerIdentity:
                return sts.caller_identity(credentials)

        identity = self._verifier.identify(ask, home, found.proof)
        spent = digest("nonce", found.nonce)
        return Proved(identity, found.proof, spent, float(checked.nonce.until))

    def _open(self, checked: Checked, origin: Origin, home: Home, now: float) -> bytes:
        found = checked.handoff
        for bare in self._contexts.of_nonce(checked.nonce, now):
            context = envelope.bound_context(bare, origin, found.nonce, found.proof)
            try:
                data_key = self._verifier.decrypt(home, found.token.wrapped_key, context)
            except StaleToken:
                continue
            return envelope.unseal(found.token, data_key=data_key, context=context)
        raise StaleToken("the context of the nonce's challenge does not open the token")

    def _take_try(self, checked: Checked, now: float) -> None:
        """Counted before AWS is asked, and in the store: parallel tries count as well."""
        text, until = checked.handoff.nonce, float(checked.nonce.until)
        for number in range(1, TRIES + 1):
            if spend(self._stores.tries, _try(text, number), until, now):
                return
        raise BadNonce(_TOO_OFTEN)


_FOREIGN: Final = "This sign-in was sent by another site."
_TOO_OFTEN: Final = f"the nonce was tried {TRIES} times"


def _try(text: str, number: int) -> bytes:
    return digest(f"try {number}", text)
