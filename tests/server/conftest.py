"""A gate with an AWS that is a dictionary: sealed tokens, and who has which access key.

It stands behind the interfaces of ``aws/base.py``, so that the gate's decisions can be tested by
the hundred and with faults at will. The real clients and the embedded AWS run with the adapters.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

import pytest

from iam_auth_proxy.aws.base import CallerIdentity, Decrypted, Encrypted
from iam_auth_proxy.errors import CiphertextInvalid, LoginNeeded
from iam_auth_proxy.protocol import challenge as challenges
from iam_auth_proxy.protocol.proof import SessionCredentials
from iam_auth_proxy.protocol.strict import encode_base64
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Reply, RequestFacts

ACCOUNT = "111122223333"
KEY = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SECRET = "N5yhfMZ6m0lTqR2cWv8sJp3XbKdGzUeA9o7iQ1tB4nE"
ORIGIN = "http://app.test"
NOW = 1_800_000_000.0
ANN = f"arn:aws:iam::{ACCOUNT}:user/ann"


@dataclass
class FakeAws:
    """KMS and STS. ``calls`` are the names of the calls made; ``faults`` raise instead of one."""

    calls: list[str] = field(default_factory=list)
    faults: dict[str, Exception] = field(default_factory=dict)
    people: dict[str, CallerIdentity] = field(default_factory=dict)
    sealed: dict[bytes, tuple[str, dict[str, str], bytes]] = field(default_factory=dict)
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
        if sealed is None or sealed[:2] != (key, dict(context)):
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
def make_gate(aws: FakeAws) -> GateMaker:
    """A gate at http://app.test, but for what is given."""

    def make(**values: object) -> Gate:
        given = {
            "kms_key": KEY,
            "secret_key": SECRET,
            "accounts": [ACCOUNT],
            "origins": [ORIGIN],
            "legacy": True,
        } | values
        return Gate(kms=aws, sts=aws, **{k: v for k, v in given.items() if v is not None})

    return make


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
    """What the seed's proxy would put into the URL, standard base64."""
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


def cookie_of(reply: Reply) -> str:
    """The one cookie that an answer sets, as a browser would send it back."""
    (value,) = fields(reply, "set-cookie")
    match = re.match(r"[^=;]+=[^;]+", value)
    assert match
    return match[0]


def sign_in(aws: FakeAws, gate: Gate, arn: str = ANN, now: float = NOW, **how: object) -> str:
    """The cookie of a whole legacy sign-in."""
    target = auth_target(token(aws, gate, aws.credentials(arn, expires=now + 900), now))
    reply = gate.check(request(target, **how), now)  # type: ignore[arg-type]  # a test's shorthand
    assert isinstance(reply, Reply)
    assert reply.status == 302, reply
    return cookie_of(reply)
