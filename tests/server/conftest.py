"""A gate with an AWS that is a dictionary: sealed tokens, and who has which access key.

It stands behind the interfaces of ``aws/base.py``, so that the gate's decisions can be tested by
the hundred and with faults at will. The real clients and the embedded AWS run with the adapters.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

import pytest

from iam_auth_proxy.aws.base import CallerIdentity, Decrypted, Encrypted
from iam_auth_proxy.errors import AwsError, CiphertextInvalid, CiphertextOfOtherKey, LoginNeeded
from iam_auth_proxy.names import parse_key_arn, parse_origin
from iam_auth_proxy.protocol import challenge as challenges
from iam_auth_proxy.protocol.envelope import Envelope, bound_context, seal
from iam_auth_proxy.protocol.handoff import FORM_TYPE, BoundHandoff, write_form
from iam_auth_proxy.protocol.nonce import is_nonce_cookie
from iam_auth_proxy.protocol.proof import ProofKind, SessionCredentials, SignedIdentity
from iam_auth_proxy.protocol.signed_identity import StsRequest, rebuild
from iam_auth_proxy.protocol.strict import encode_base64
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Reply, RequestFacts

ACCOUNT = "111122223333"
KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SECRET = "N5yhfMZ6m0lTqR2cWv8sJp3XbKdGzUeA9o7iQ1tB4nE"
ORIGIN = "http://app.test"
NOW = 1_800_000_000.0
ANN = f"arn:aws:iam::{ACCOUNT}:user/ann"
# What KMS says of a ciphertext whose key it does not know, or does not show.
UNSEEN_KEY = "AccessDeniedException: The ciphertext refers to a customer master key that does not"


@dataclass
class FakeAws:
    """KMS and STS. ``calls`` are the names of the calls made; ``faults`` raise instead of one."""

    calls: list[str] = field(default_factory=list)
    faults: dict[str, Exception] = field(default_factory=dict)
    people: dict[str, CallerIdentity] = field(default_factory=dict)
    sealed: dict[bytes, tuple[str, dict[str, str], bytes]] = field(default_factory=dict)
    requests: list[StsRequest] = field(default_factory=list)
    answers_with: str = ""

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.faults:
            raise self.faults[name]

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        blob = hashlib.sha512(repr((key, plaintext, sorted(context.items()))).encode()).digest()
        self.sealed[blob] = key, dict(context), plaintext
        return Encrypted(blob, key)

    def decrypt(self, key: str, ciphertext: bytes, context: Mapping[str, str]) -> Decrypted:
        self._call("Decrypt")
        sealed = self.sealed.get(ciphertext)
        if sealed is not None and sealed[0] != key:
            raise CiphertextOfOtherKey("IncorrectKeyException")
        if sealed is None or sealed[1] != dict(context):
            raise CiphertextInvalid("InvalidCiphertextException")
        return Decrypted(sealed[2], self.answers_with or key)

    def key_arn(self, key: str) -> str:
        self._call("DescribeKey")
        return KEY

    def caller_identity(self, credentials: SessionCredentials | None = None) -> CallerIdentity:
        self._call("GetCallerIdentity")
        if credentials is None:
            return CallerIdentity(ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/app/i-1", "AROA")
        try:
            return self.people[credentials.access_key_id]
        except KeyError:
            raise LoginNeeded("InvalidClientTokenId") from None

    def check_signed_identity(self, request: StsRequest) -> CallerIdentity:
        self.requests.append(request)
        self._call("SignedIdentity")
        target, _, signature = request.target.rpartition("&X-Amz-Signature=")
        match = re.search("X-Amz-Credential=([A-Z0-9]+)%2F", target)
        if match is None or match[1] not in self.people:
            raise LoginNeeded("InvalidClientTokenId")
        if signature != _signature(request.host, target, request.headers):
            raise AwsError("SignatureDoesNotMatch")
        return self.people[match[1]]

    def signed(
        self,
        nonce: str,
        arn: str = ANN,
        *,
        origin: str = ORIGIN,
        key: str = KEY,
        at: float = NOW,
    ) -> SignedIdentity:
        """Somebody's signature over the request that the server rebuilds."""
        who = self.credentials(arn)
        date = datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")
        proof = SignedIdentity(
            date=date, access_key_id=who.access_key_id, session_token="t" * 300, signature="0" * 64
        )
        made = rebuild(proof, parse_key_arn(key), parse_origin(origin), nonce)
        target = made.target.rpartition("&X-Amz-Signature=")[0]
        return replace(proof, signature=_signature(made.host, target, made.headers))

    def credentials(
        self,
        arn: str = ANN,
        *,
        user_id: str = "",
        account: str = "",
        expires: float = NOW + 900,
        number: int | None = None,
    ) -> SessionCredentials:
        """Fresh session credentials of somebody."""
        number = len(self.people) if number is None else number
        key_id = f"ASIA{number:016d}"
        account = account or arn.split(":")[4]
        self.people[key_id] = CallerIdentity(account, arn, user_id or _user_id(arn))
        return SessionCredentials(key_id, "s" * 40, "t" * 300, int(expires))


def _signature(host: str, target: str, headers: tuple[tuple[str, str], ...]) -> str:
    """Over what SigV4 signs: the target and the signed headers, in any order."""
    signed = sorted(pair for pair in headers if pair[0].startswith("x-iam-auth-"))
    return hashlib.sha256(repr((host, target, signed)).encode()).hexdigest()


def _user_id(arn: str) -> str:
    _, _, _, _, account, resource = arn.split(":", 5)
    if resource == "root":
        return account
    if resource.startswith("federated-user/"):
        return f"{account}:{resource.partition('/')[2]}"
    if resource.startswith("assumed-role/"):
        return f"AROA12345678901234567:{resource.rpartition('/')[2]}"
    return f"AIDA{hashlib.sha256(arn.encode()).hexdigest()[:17].upper()}"


@pytest.fixture
def aws() -> FakeAws:
    return FakeAws()


GateMaker = Callable[..., Gate]


@pytest.fixture
def make_gate(aws: FakeAws) -> Iterator[GateMaker]:
    """A gate at http://app.test, but for what is given."""
    made: list[Gate] = []

    def make(**values: object) -> Gate:
        given = {
            "kms_key": KEY,
            "secret_key": SECRET,
            "accounts": [ACCOUNT],
            "origins": [ORIGIN],
            "legacy": True,
        } | values
        gate = Gate(kms=aws, sts=aws, **{k: v for k, v in given.items() if v is not None})
        made.append(gate)
        return gate

    yield make
    for gate in made:
        gate.close()


@pytest.fixture
def gate(make_gate: GateMaker) -> Gate:
    return make_gate()


def request(
    target: str = "/",
    *,
    method: str = "GET",
    scheme: str = "http",
    host: str = "app.test",
    client: str = "192.0.2.1",
    cookie: str = "",
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
) -> RequestFacts:
    """A request as an adapter tells of it."""
    path, _, query = target.partition("?")
    pairs = [*(headers.items() if isinstance(headers, Mapping) else headers)]
    if host:
        pairs.insert(0, ("host", host))
    if cookie:
        pairs.append(("cookie", cookie))
    return RequestFacts(method, scheme, unquote(path), query, tuple(pairs), client, target)


def fields(reply: Reply, name: str) -> list[str]:
    """Every value of a field of the gate's answer."""
    return [value for key, value in reply.headers if key.lower() == name.lower()]


def challenge_of(reply: Reply) -> challenges.Challenge:
    """The challenge that a 401 carries."""
    assert reply.status == 401
    found = challenges.parse([(n.encode(), v.encode()) for n, v in reply.headers])
    assert found is not None
    return found


def token(
    aws: FakeAws, gate: Gate, credentials: SessionCredentials, now: float = NOW, **change: object
) -> str:
    """What the original's proxy would put into the URL, standard base64."""
    asked = challenge_of(_reply(gate.check(request("/x"), now)))
    plaintext = change.get("plaintext", credentials.dumps())
    assert isinstance(plaintext, bytes)
    key, context = str(change.get("key", asked.key)), change.get("context", asked.context)
    assert isinstance(context, Mapping)
    return encode_base64(aws.encrypt(key, plaintext, context).ciphertext)


def auth_target(token: str, return_url: str = "/private?x=1", path: str = "/auth") -> str:
    """``/auth?token=...&return_url=...``, encoded as Go's url.Values does."""
    return f"{path}?return_url={quote(return_url, safe='')}&token={quote(token, safe='')}"


def _reply(answer: object) -> Reply:
    assert isinstance(answer, Reply)
    return answer


def session_cookies(reply: Reply) -> list[str]:
    """The Set-Cookie fields of an answer, but for the nonce's."""
    values = fields(reply, "set-cookie")
    return [value for value in values if not is_nonce_cookie(value.encode())]


def cookie_of(reply: Reply) -> str:
    """The one session cookie that an answer sets, as a browser would send it back."""
    (value,) = session_cookies(reply)
    match = re.match(r"[^=;]+=[^;]+", value)
    assert match
    return match[0]


@dataclass
class Dance:
    """A bound sign-in as the proxy makes it, each part of which a test may change."""

    aws: FakeAws
    gate: Gate
    now: float = NOW
    host: str = "app.test"
    scheme: str = "http"
    arn: str = ANN
    kind: ProofKind = ProofKind.SIGNED_IDENTITY
    return_url: str = "/private?x=1"
    origin: str = ""
    proof: bytes = b""
    key: str = ""
    context: Mapping[str, str] | None = None
    data_key: bytes = b"k" * 32

    def __post_init__(self) -> None:
        self.origin = self.origin or f"{self.scheme}://{self.host}"
        self.begin(self.now)

    def begin(self, now: float) -> None:
        """The request that is answered with a challenge."""
        answer = _reply(self.gate.check(request("/x", host=self.host, scheme=self.scheme), now))
        self.asked = challenge_of(answer)
        assert self.asked.bound is not None
        self.nonce = self.asked.bound.nonce
        (field,) = [f for f in fields(answer, "set-cookie") if is_nonce_cookie(f.encode())]
        self.cookie = field.partition(";")[0]

    def body(self) -> bytes:
        """The form, sealed for whatever is set."""
        key, now = self.key or str(self.asked.key), self.now
        if self.kind is ProofKind.SIGNED_IDENTITY:
            proof = self.aws.signed(self.nonce, self.arn, origin=self.origin, key=key, at=now)
            plain = proof.dumps()
        else:
            plain = self.aws.credentials(self.arn, expires=now + 900).dumps()
        bare = self.asked.context if self.context is None else self.context
        context = bound_context(bare, parse_origin(self.origin), self.nonce, self.kind)
        wrapped = self.aws.encrypt(key, self.data_key, context).ciphertext
        iv = b"i" * 12
        data_key = self.data_key.ljust(32)[:32]
        sealed = seal(self.proof or plain, data_key=data_key, iv=iv, context=context)
        handoff = BoundHandoff(
            Envelope(wrapped, iv, sealed), self.return_url, self.nonce, self.kind
        )
        return write_form(handoff, auth_path=self.gate.settings.path)

    def post(self, body: bytes | None = None, **how: Any) -> RequestFacts:
        """The request that hands it over; ``headers`` are added, ``cookie`` replaces."""
        headers = {"content-type": FORM_TYPE} | how.pop("headers", {})
        given = {
            "method": "POST", "host": self.host, "scheme": self.scheme, "cookie": self.cookie,
        } | how  # fmt: skip
        body = self.body() if body is None else body
        facts = request(self.gate.settings.path, headers=headers, **given)
        return replace(facts, body=body)

    def sign_in(self, now: float | None = None) -> Reply:
        """The gate's answer."""
        return _reply(self.gate.check(self.post(), self.now if now is None else now))


def sign_in(aws: FakeAws, gate: Gate, arn: str = ANN, now: float = NOW, **how: object) -> str:
    """The cookie of a whole legacy sign-in."""
    target = auth_target(token(aws, gate, aws.credentials(arn, expires=now + 900), now))
    reply = gate.check(request(target, **how), now)  # type: ignore[arg-type]  # a test's shorthand
    assert isinstance(reply, Reply)
    assert reply.status == 302, reply
    return cookie_of(reply)
