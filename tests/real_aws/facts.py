"""What is asked, in this order: later facts break what earlier ones need."""

from __future__ import annotations

import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from iam_auth_proxy.aws.clients import make_clients
from iam_auth_proxy.aws.credentials import AwsPrincipal, CredentialSettings
from iam_auth_proxy.config.values import parse_trust
from iam_auth_proxy.errors import IamAuthError
from iam_auth_proxy.local_aws import Keys
from iam_auth_proxy.names import parse_key_arn, parse_origin
from iam_auth_proxy.protocol import challenge as challenges
from iam_auth_proxy.protocol import identity as identities
from iam_auth_proxy.protocol.envelope import Envelope
from iam_auth_proxy.protocol.handoff import FORM_TYPE, BoundHandoff, write_form
from iam_auth_proxy.protocol.nonce import cookie_name
from iam_auth_proxy.protocol.signed_identity import rebuild
from iam_auth_proxy.proxy.decisions.trust import Trust
from iam_auth_proxy.proxy.signin.sealing import seal
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Answer, Reply, RequestFacts
from tests.real_aws.sides import Outcome, told
from tests.real_aws.stage import Stage, remove_user

APP: Final = "http://app.internal"
"""The origin that ``user.json`` lets people sign in to."""
ORIGIN: Final = {"iam-auth-origin": APP}
CONTEXT: Final = {"salt": "pepper", **ORIGIN}
SALTED: Final = {"EncryptionContext": CONTEXT}
KNOWN: Final = "known"
"""AWS's documentation says so, or somebody saw it."""
ASSUMED: Final = "assumed"
"""Nobody who wrote it down was sure: the answer that this is for."""

OVER = 2.5
"""Seconds after which a signature that says it is good for one is over."""

_OK: Final = Outcome("ok")
_LARGEST_CONTEXT: Final = (1, 4, 8, 16, 64)
"""KiB."""


class Play:
    """The stage, and what one fact leaves for the next."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.side = stage, stage.side
        self.blob = b""
        self.session = Keys("", "")

    # -- it has to be there first ------------------------------------------------------------------

    def ready(self) -> Outcome:
        """Users and policies take a while to be known everywhere."""
        ours = {"KeyId": self.stage.key}
        person, server = self._kms(self.stage.person), self._kms(self.stage.server)
        for ask in (
            lambda: told(person.encrypt, Plaintext=b"x", **ours),
            lambda: told(server.describe_key, **ours),
            lambda: told(self._sts(self.stage.person).get_caller_identity),
        ):
            outcome = self.side.eventually(ask, _OK.__eq__)
            if outcome != _OK:
                return outcome
        return _OK

    # -- who ---------------------------------------------------------------------------------------

    def identity(self) -> Outcome:
        def shape(answer: Any) -> str:
            found = identities.parse(answer["Arn"], answer["UserId"])
            same = found.name == self.stage.user_name and found.account == answer["Account"]
            return f"{found.kind} {found.path} {found.unique_id[:4]} {same}"

        return told(self._sts(self.stage.person).get_caller_identity, shape)

    def session_of_a_user(self) -> Outcome:
        def keep(answer: Any) -> str:
            given = answer["Credentials"]
            self.session = Keys(
                given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"]
            )
            left = given["Expiration"].timestamp() - time.time()
            return f"{given['AccessKeyId'][:4]} {left > 840} {left < 960}"

        return told(self._sts(self.stage.person).get_session_token, keep, DurationSeconds=900)

    def session_too_short(self) -> Outcome:
        return told(self._sts(self.stage.person).get_session_token, DurationSeconds=899)

    def session_of_a_session(self) -> Outcome:
        return told(self._sts(self.session).get_session_token, DurationSeconds=900)

    def federation(self) -> Outcome:
        return told(self._sts(self.stage.person).get_federation_token, Name="anybody")

    def session_and_kms(self) -> Outcome:
        return told(self._kms(self.session).encrypt, KeyId=self.stage.key, Plaintext=b"x")

    def session_and_iam(self) -> Outcome:
        return told(self.side.client("iam", self.session).list_users)

    def role_that_trusts_all(self) -> Outcome:
        arn = f"arn:{self.side.partition}:iam::{self.side.account}:role/{self.stage.role_name}"
        return told(self._sts(self.stage.person).assume_role, RoleArn=arn, RoleSessionName="check")

    # -- signatures --------------------------------------------------------------------------------

    def wrong_secret(self) -> Outcome:
        return self._both(Keys(self.stage.person.access_key_id, "x" * 40))

    def unknown_key(self) -> Outcome:
        return self._both(Keys("AKIA" + "Z" * 16, "x" * 40))

    def missing_session_token(self) -> Outcome:
        return self._both(Keys(self.session.access_key_id, self.session.secret_access_key))

    def presigned(self) -> Outcome:
        """``X-Amz-Expires`` runs out, and a field that is not signed comes along."""
        sts = self._sts(self.stage.person)
        url = sts.generate_presigned_url("get_caller_identity", ExpiresIn=1, HttpMethod="GET")
        time.sleep(OVER)
        request = urllib.request.Request(url, headers={"X-Unsigned": "1"})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return Outcome(f"{answer.status} {self.stage.user_name.encode() in answer.read()}")
        except urllib.error.HTTPError as error:
            with error:
                return Outcome(str(error.code), error.read(400).decode("utf-8", "replace"))

    def signed_identity(self) -> Outcome:
        """As our proxy signs it and our server rebuilds it; and rebuilt for another nonce."""
        key, origin = parse_key_arn(self.stage.key), parse_origin("http://app.test")
        ours, other = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        with self.side.found_by_our_code(self.stage.person):
            person = AwsPrincipal(CredentialSettings(region=self.side.region))
            proof = person.sign_identity(key, origin, ours, time.time())
        said, detail = [], ""
        with self.side.found_by_our_code(self.stage.server):
            _, sts = make_clients(key=self.stage.key)
            for nonce in (ours, other):
                try:
                    request = rebuild(proof, key, origin, nonce)
                    caller = sts.check_signed_identity(request)
                    said.append(str(caller.arn.endswith(f"/{self.stage.user_name}")))
                except IamAuthError as error:
                    said.append(f"{type(error).__name__} {error.code}")
                    detail = str(error)
        return Outcome(", ".join(said), detail)

    # -- KMS ---------------------------------------------------------------------------------------

    def encrypt(self) -> Outcome:
        def keep(answer: Any) -> str:
            self.blob = answer["CiphertextBlob"]
            return f"ok {answer['KeyId'] == self.stage.key}"

        return told(
            self._kms(self.stage.person).encrypt,
            keep, KeyId=self.stage.key, Plaintext=b"secret", **SALTED,
        )  # fmt: skip

    def encrypt_for_another(self) -> Outcome:
        context = {"iam-auth-origin": "http://other.internal"}
        ask = {"KeyId": self.stage.key, "Plaintext": b"x", "EncryptionContext": context}
        return told(self._kms(self.stage.person).encrypt, **ask)

    def encrypt_elsewhere(self) -> Outcome:
        ask = {"KeyId": self.stage.other, "Plaintext": b"x", "EncryptionContext": CONTEXT}
        return told(self._kms(self.stage.person).encrypt, **ask)

    def decrypt(self) -> Outcome:
        def opened(answer: Any) -> str:
            return f"{answer['Plaintext']!r} {answer['KeyId'] == self.stage.key}"

        return self._open(opened, **SALTED)

    def person_decrypts(self) -> Outcome:
        kms = self._kms(self.stage.person)
        return told(kms.decrypt, KeyId=self.stage.key, CiphertextBlob=self.blob, **SALTED)

    def other_case(self) -> Outcome:
        return self._open(EncryptionContext={"Salt": "pepper"})

    def superset(self) -> Outcome:
        return self._open(EncryptionContext={**CONTEXT, "more": "x"})

    def no_context(self) -> Outcome:
        return self._open()

    def tampered(self) -> Outcome:
        flipped = self.blob[:-1] + bytes([self.blob[-1] ^ 1])
        return self._open(CiphertextBlob=flipped, **SALTED)

    def noise(self) -> Outcome:
        return self._open(CiphertextBlob=secrets.token_bytes(len(self.blob)), **SALTED)

    def foreign(self) -> Outcome:
        """Sealed under a key that the server may not use; the KeyId is the server's own."""
        sealed = self.side.client("kms").encrypt(KeyId=self.stage.other, Plaintext=b"x", **SALTED)
        return self._open(CiphertextBlob=sealed["CiphertextBlob"], **SALTED)

    def other_key_id(self) -> Outcome:
        kms = self.side.client("kms")
        return told(kms.decrypt, KeyId=self.stage.other, CiphertextBlob=self.blob, **SALTED)

    def plaintext_limits(self) -> Outcome:
        kms = self._kms(self.stage.person)
        sizes = {
            size: told(kms.encrypt, KeyId=self.stage.key, Plaintext=b"x" * size).text
            for size in (0, 4096, 4097)
        }
        return Outcome(str(sizes))

    def context_limits(self) -> Outcome:
        kms = self._kms(self.stage.person)
        for size in _LARGEST_CONTEXT:
            context = {"salt": "x" * (size << 10), **ORIGIN}
            ask = {"KeyId": self.stage.key, "Plaintext": b"x", "EncryptionContext": context}
            outcome = told(kms.encrypt, **ask)
            if outcome != _OK:
                return Outcome(f"{size} KiB: {outcome.text}", outcome.message)
        return Outcome(f"{_LARGEST_CONTEXT[-1]} KiB: ok")

    def context_case(self) -> Outcome:
        context = {"salt": "x", "Salt": "y", **ORIGIN}
        ask = {"KeyId": self.stage.key, "Plaintext": b"x", "EncryptionContext": context}
        return told(self._kms(self.stage.person).encrypt, **ask)

    # -- the main job ------------------------------------------------------------------------------

    def sign_in(self) -> Outcome:
        """A bound sign-in with our own proxy's and server's code, and the same hand-over again."""
        now = time.time()
        try:
            with self.side.found_by_our_code(self.stage.server):
                kms, sts = make_clients(key=self.stage.key)
                gate = Gate(
                    kms=kms, sts=sts, kms_key=self.stage.key, accounts=[self.side.account],
                    origins=[APP], secret_key=secrets.token_urlsafe(32),
                )  # fmt: skip
                sts.caller_identity()
            with self.side.found_by_our_code(self.stage.person):
                person = AwsPrincipal(CredentialSettings(region=self.side.region))
                form, nonce = self._sealed(gate, person, now)
            with self.side.found_by_our_code(self.stage.server):
                first, again = (_ask(gate, "/auth", now, nonce, form) for _ in range(2))
        except IamAuthError as error:
            return Outcome(f"{type(error).__name__} {error.code}", str(error))
        cookie = _field(first, "Set-Cookie").partition(";")[0]
        inside = _ask(gate, "/", now, cookie)
        who = "nobody" if isinstance(inside, Reply) else inside.identity
        right = isinstance(who, identities.Identity) and who.name == self.stage.user_name
        return Outcome(
            f"{_said(first)} to {_field(first, 'Location')}, signed in {right}, "
            f"again {_said(again)} {_field(again, 'Iam-Auth-Error')}"
        )

    def _sealed(self, gate: Gate, person: AwsPrincipal, now: float) -> tuple[bytes, str]:
        """The form that hands the proof over, and the nonce's cookie to go with it."""
        refused = _ask(gate, "/private?x=1", now)
        assert isinstance(refused, Reply)
        fields = [(name.encode(), value.encode()) for name, value in refused.headers]
        asked, origin = challenges.parse(fields), parse_origin(APP)
        assert asked is not None
        assert asked.bound is not None
        sealed = seal(person, Trust([parse_trust(APP)]), origin, asked, lambda account: (), now)
        assert isinstance(sealed.token, Envelope)
        nonce = asked.bound.nonce
        form = write_form(BoundHandoff(sealed.token, "/private?x=1", nonce, sealed.kind))
        return form, f"{cookie_name(origin)}={nonce}"

    # -- what ends ---------------------------------------------------------------------------------

    def disabled_key(self) -> Outcome:
        self.side.client("kms").disable_key(KeyId=self.stage.key)
        return self.side.eventually(lambda: self._open(**SALTED), _is_refused)

    def key_pending_deletion(self) -> Outcome:
        kms = self.side.client("kms")
        kms.schedule_key_deletion(KeyId=self.stage.key, PendingWindowInDays=7)
        return self.side.eventually(
            lambda: self._open(**SALTED), lambda outcome: "Disabled" not in outcome.text
        )

    def deactivated_access_key(self) -> Outcome:
        self.side.client("iam").update_access_key(
            UserName=self.stage.user_name,
            AccessKeyId=self.stage.person.access_key_id,
            Status="Inactive",
        )
        ask = self._sts(self.stage.person).get_caller_identity
        return self.side.eventually(lambda: told(ask), _is_refused)

    def session_of_a_deactivated_key(self) -> Outcome:
        """Given time to be refused; that it goes on is the answer if it does."""
        return self._session_goes_on()

    def session_of_a_deleted_user(self) -> Outcome:
        remove_user(self.side, self.stage.user_name, lambda text: None)
        return self._session_goes_on()

    def _session_goes_on(self) -> Outcome:
        ask = self._sts(self.session).get_caller_identity
        return self.side.eventually(lambda: told(ask), _is_refused)

    # -- asking ------------------------------------------------------------------------------------

    def _kms(self, keys: Keys) -> Any:
        return self.side.client("kms", keys)

    def _sts(self, keys: Keys) -> Any:
        return self.side.client("sts", keys)

    def _both(self, keys: Keys) -> Outcome:
        """STS and KMS spell the same refusal differently."""
        sts = told(self._sts(keys).get_caller_identity)
        kms = told(self._kms(keys).encrypt, KeyId=self.stage.key, Plaintext=b"x")
        return Outcome(f"{sts.text}, {kms.text}", f"{sts.message} | {kms.message}")

    def _open(
        self, describe: Callable[[Any], str] = lambda answer: "ok", /, **change: Any
    ) -> Outcome:
        """Decrypt as the server, with the server's key named."""
        ask = {"KeyId": self.stage.key, "CiphertextBlob": self.blob} | change
        return told(self._kms(self.stage.server).decrypt, describe, **ask)


def _is_refused(outcome: Outcome) -> bool:
    return outcome != _OK


def _ask(gate: Gate, target: str, now: float, cookie: str = "", form: bytes = b"") -> Answer:
    path, _, query = target.partition("?")
    fields = [("host", APP.partition("://")[2]), *([("cookie", cookie)] if cookie else [])]
    if form:
        fields.append(("content-type", FORM_TYPE))
    method = "POST" if form else "GET"
    facts = RequestFacts(method, "http", path, query, tuple(fields), target=target, body=form)
    return gate.check(facts, now)


def _field(answer: Answer, name: str) -> str:
    headers = answer.headers if isinstance(answer, Reply) else ()
    return next((value for key, value in headers if key == name), "")


def _said(answer: Answer) -> str:
    return str(answer.status) if isinstance(answer, Reply) else "let through"


@dataclass(frozen=True, slots=True)
class Fact:
    """One question. ``mark``: how sure the embedded AWS is of its own answer."""

    text: str
    ask: Callable[[Play], Outcome]
    mark: str = KNOWN


FACTS: Final = (
    Fact("the shipped policies are in force", Play.ready),
    Fact("GetCallerIdentity of a user", Play.identity),
    Fact("GetSessionToken, 900 s", Play.session_of_a_user),
    Fact("GetSessionToken, 899 s", Play.session_too_short),
    Fact("GetSessionToken with session credentials", Play.session_of_a_session),
    Fact("GetFederationToken without permission", Play.federation),
    Fact("a session without MFA has the user's rights in KMS", Play.session_and_kms),
    Fact("a session without MFA calls IAM", Play.session_and_iam),
    Fact('AssumeRole, trust "*", same account, no permission', Play.role_that_trusts_all, ASSUMED),
    Fact("wrong secret key (STS, KMS)", Play.wrong_secret),
    Fact("unknown access key (STS, KMS)", Play.unknown_key),
    Fact("session without its token (STS, KMS)", Play.missing_session_token),
    Fact("presigned, X-Amz-Expires over, an unsigned field", Play.presigned),
    Fact("the signed identity, and for another nonce", Play.signed_identity, ASSUMED),
    Fact("Encrypt by user.json", Play.encrypt),
    Fact("Encrypt for an app that is not in user.json", Play.encrypt_for_another),
    Fact("Encrypt with a key that is not in user.json", Play.encrypt_elsewhere),
    Fact("Decrypt by server.json", Play.decrypt),
    Fact("Decrypt by user.json", Play.person_decrypts),
    Fact("Decrypt, context key in other case", Play.other_case),
    Fact("Decrypt, context with one pair more", Play.superset),
    Fact("Decrypt without context", Play.no_context),
    Fact("Decrypt, last byte flipped", Play.tampered),
    Fact("Decrypt, random bytes", Play.noise, ASSUMED),
    Fact("Decrypt, blob of a key the server may not use", Play.foreign, ASSUMED),
    Fact("Decrypt, KeyId of another usable key", Play.other_key_id),
    Fact("Encrypt of 0, 4096, 4097 bytes", Play.plaintext_limits),
    Fact("first context that is too large", Play.context_limits, ASSUMED),
    Fact("context keys that differ by case only", Play.context_case, ASSUMED),
    Fact("a whole sign-in, and its token again", Play.sign_in),
    Fact("Decrypt, key disabled", Play.disabled_key),
    Fact("Decrypt, key pending deletion", Play.key_pending_deletion),
    Fact("a deactivated access key", Play.deactivated_access_key),
    Fact("session of a deactivated access key", Play.session_of_a_deactivated_key, ASSUMED),
    Fact("session of a deleted user", Play.session_of_a_deleted_user, ASSUMED),
)
