"""STS verifies a signed identity; whatever else answers in its place is not believed."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.aws import identity_check, signing
from iam_auth_proxy.aws.base import CallerIdentity, Sts
from iam_auth_proxy.aws.clients import make_clients
from iam_auth_proxy.aws.connections import new_session
from iam_auth_proxy.errors import (
    AccessDenied,
    AwsError,
    AwsUnavailable,
    ClockSkew,
    IamAuthError,
    LoginNeeded,
    Malformed,
)
from iam_auth_proxy.local_aws import Keys, LocalAws
from iam_auth_proxy.names import PARTITIONS, KeyArn, parse_key_arn, parse_origin
from iam_auth_proxy.protocol.proof import SignedIdentity
from iam_auth_proxy.protocol.signed_identity import StsRequest, rebuild
from tests.support.signed_identity import unsigned

KEY_ID = "1234abcd-12ab-34cd-56ef-1234567890ab"
KEY = parse_key_arn(f"arn:aws:kms:eu-west-1:111122223333:key/{KEY_ID}")
ORIGIN = parse_origin("http://app.test")
NONCE = "a-nonce-of-the-server.0123456789"
HOST = "sts.eu-west-1.amazonaws.com"
ALICE = {
    "Account": "111122223333",
    "Arn": "arn:aws:iam::111122223333:user/alice",
    "UserId": "AIDAALICE0ALICE0ALICE",
}
GOOD = {
    "GetCallerIdentityResponse": {
        "GetCallerIdentityResult": ALICE,
        "ResponseMetadata": {"RequestId": "01234567-89ab-cdef-0123-456789abcdef"},
    }
}


@pytest.fixture
def keys(aws: LocalAws) -> Keys:
    return aws.user("alice").keys()


@pytest.fixture
def sts(aws: LocalAws) -> Sts:
    return make_clients(region_name="eu-west-1", environ={})[1]


def sign(
    keys: Keys, *, key: KeyArn = KEY, origin: str = str(ORIGIN), nonce: str = NONCE, ago: float = 0
) -> SignedIdentity:
    signer = Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token or None)
    return signing.sign_identity(signer, key, parse_origin(origin), nonce, time.time() - ago)


def check(sts: Sts, proof: SignedIdentity) -> CallerIdentity:
    return sts.check_signed_identity(rebuild(proof, KEY, ORIGIN, NONCE))


# -- what STS says ---------------------------------------------------------------------------------


def test_whose_identity_it_is(aws: LocalAws, keys: Keys, sts: Sts) -> None:
    caller = check(sts, sign(keys))
    assert (caller.arn, caller.account) == (keys.arn, "111122223333")
    assert [(call.action, call.access_key_id) for call in aws.calls] == [
        ("GetCallerIdentity", keys.access_key_id)
    ]


def test_the_server_needs_no_credentials_for_it(aws: LocalAws, keys: Keys, sts: Sts) -> None:
    assert not [name for name in os.environ if name.startswith("AWS_ACCESS_KEY")]
    assert check(sts, sign(keys)).arn == keys.arn


def flipped(signature: str) -> str:
    return signature[:-1] + ("0" if signature[-1] != "0" else "1")


def test_a_proof_that_is_not_good(aws: LocalAws, keys: Keys, sts: Sts) -> None:
    good = sign(keys)
    wrong_secret = replace(keys, secret_access_key="x" * 40)
    for proof in (
        sign(wrong_secret),
        replace(good, signature=flipped(good.signature)),
        replace(good, date=good.date[:-3] + ("00Z" if good.date[-3:] != "00Z" else "01Z")),
        replace(good, access_key_id="AKIAIOSFODNN7EXAMPLE"),
        replace(good, access_key_id=aws.user("bob").keys().access_key_id),
        replace(good, session_token="token"),
    ):
        with pytest.raises(LoginNeeded):
            check(sts, proof)
    assert check(sts, good).arn == keys.arn


def test_a_session_needs_its_token_and_has_its_end(aws: LocalAws, sts: Sts) -> None:
    session = aws.sso_role("Developer", "ann@example.com")
    proof = sign(session)
    with pytest.raises(LoginNeeded):
        check(sts, replace(proof, session_token=""))
    assert check(sts, proof).arn == session.arn
    aws.expire(session.access_key_id)
    with pytest.raises(LoginNeeded, match="ExpiredToken") as caught:
        check(sts, proof)
    assert caught.value.public == "The AWS session has expired."


@pytest.mark.parametrize("minutes", [16, -16])
def test_a_clock_that_is_wrong(keys: Keys, sts: Sts, minutes: int) -> None:
    with pytest.raises(ClockSkew) as caught:
        check(sts, sign(keys, ago=minutes * 60))
    assert caught.value.seconds == pytest.approx(-minutes * 60, abs=5)


def test_sts_itself_goes_by_15_minutes_whatever_the_request_says(keys: Keys, sts: Sts) -> None:
    """So the server's own check of the date is what holds (SignedIdentity.check)."""
    assert check(sts, sign(keys, ago=14 * 60)).arn == keys.arn


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("AccessDenied", 403, AccessDenied),
        ("InvalidClientTokenId", 403, LoginNeeded),
        ("RegionDisabledException", 403, AwsError),
        ("SomethingNew", 400, AwsError),
        ("Throttling", 400, AwsUnavailable),
        ("ThrottlingException", 400, AwsUnavailable),
        ("SomethingNew", 429, AwsUnavailable),
        ("InternalFailure", 500, AwsUnavailable),
        ("ServiceUnavailable", 503, AwsUnavailable),
        ("SomethingNew", 599, AwsUnavailable),
    ],
)
def test_no_and_not_now_are_told_apart(
    aws: LocalAws, keys: Keys, sts: Sts, code: str, status: int, kind: type[IamAuthError]
) -> None:
    aws.fault("sts", code=code, status=status, message="words", times=None)
    with pytest.raises(IamAuthError) as caught:
        check(sts, sign(keys))
    assert type(caught.value) is kind


# -- the published bypasses of other verifiers (facts: three advisories) ---------------------------


class TestCve202016250:
    """Vault: the client chose action and host, and XML that reflects his words was believed."""

    REFLECTED = (
        "<GetCallerIdentityResponse><GetCallerIdentityResult>"
        "<Arn>arn:aws:iam::111122223333:user/admin</Arn><UserId>AIDAADMIN0ADMIN0ADMI</UserId>"
        "<Account>111122223333</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
    )

    @pytest.mark.parametrize("kind", ["text/xml", "application/json"])
    def test_xml_is_no_answer(self, aws: LocalAws, keys: Keys, sts: Sts, kind: str) -> None:
        body = self.REFLECTED.encode()
        aws.fault("sts", body=body, headers={"Content-Type": kind}, times=None)
        with pytest.raises(AwsUnavailable, match="not one of STS's"):
            check(sts, sign(keys))

    def test_nor_is_an_error_in_xml(self, aws: LocalAws, keys: Keys, sts: Sts) -> None:
        aws.fault("sts", status=403, body=self.REFLECTED.encode(), times=None)
        with pytest.raises(AwsUnavailable, match="status 403"):
            check(sts, sign(keys))

    def test_another_actions_answer_is_none(self, aws: LocalAws, keys: Keys, sts: Sts) -> None:
        body = json.dumps({"AssumeRoleResponse": {"AssumeRoleResult": ALICE}, "x": GOOD})
        aws.fault("sts", body=body.encode(), times=None)
        with pytest.raises(AwsUnavailable):
            check(sts, sign(keys))

    def test_a_signature_over_another_action_does_not_verify(
        self, aws: LocalAws, keys: Keys, sts: Sts
    ) -> None:
        bare = unsigned(KEY, ORIGIN, NONCE)
        bare = replace(bare, target=bare.target.replace("GetCallerIdentity", "GetSessionToken"))
        with pytest.raises(LoginNeeded):
            check(sts, presigned(keys, bare))

    def test_a_signature_for_another_host_does_not_verify(
        self, keys: Keys, sts: Sts, aws: LocalAws
    ) -> None:
        bare = unsigned(KEY, ORIGIN, NONCE)
        for host in ("sts.amazonaws.com", "sts.eu-west-2.amazonaws.com", "evil.example"):
            headers = (("host", host), *bare.headers[1:])
            with pytest.raises(LoginNeeded):
                check(sts, presigned(keys, replace(bare, headers=headers)))
        assert {call.region for call in aws.calls} == {"eu-west-1"}


class TestCve20222385:
    """aws-iam-authenticator: a second parameter, in other letters, was what STS went by."""

    @pytest.mark.parametrize(
        "extra",
        ["&action=GetSessionToken", "&Action=GetSessionToken", "&x-amz-signedheaders=host"],
    )
    def test_a_signature_over_a_further_parameter_does_not_verify(
        self, keys: Keys, sts: Sts, extra: str
    ) -> None:
        bare = unsigned(KEY, ORIGIN, NONCE)
        with pytest.raises(LoginNeeded):
            check(sts, presigned(keys, replace(bare, target=bare.target + extra)))

    @pytest.mark.parametrize("evil", ["&Action=X", "&x-amz-date=20260101T000000Z", "%26a=b", "#"])
    @pytest.mark.parametrize("field", ["date", "access_key_id", "session_token", "signature"])
    def test_no_field_of_a_proof_becomes_a_parameter(
        self, keys: Keys, field: str, evil: str
    ) -> None:
        good = sign(keys)
        try:
            proof = replace(good, **{field: getattr(good, field) + evil})
        except Malformed:
            return
        target = rebuild(proof, KEY, ORIGIN, NONCE).target
        assert field == "session_token"  # opaque: AWS says to assume nothing of it
        names = [pair.partition("=")[0] for pair in target[2:].split("&")]
        assert names[:2] == ["Action", "Version"]
        assert len(names) == len({name.lower() for name in names}) == 9


class TestGhsaWq26:
    """Chainguard's SDK: headers that bind a proof to a service were not among the signed ones."""

    def test_a_proof_that_binds_nothing_does_not_verify(
        self, aws: LocalAws, keys: Keys, sts: Sts
    ) -> None:
        """The same request as ours, but for what its signature covers: such a one verifies at STS
        with whatever headers are put beside it."""
        bare = unsigned(KEY, ORIGIN, NONCE)
        unbound = replace(bare, headers=bare.headers[:1])
        with pytest.raises(LoginNeeded):
            check(sts, presigned(keys, unbound))
        for left_out in (1, 2):
            some = tuple(pair for index, pair in enumerate(bare.headers) if index != left_out)
            with pytest.raises(LoginNeeded):
                check(sts, presigned(keys, replace(bare, headers=some)))

    @pytest.mark.parametrize(
        "elsewhere",
        [
            {"origin": "http://evil.example"},
            {"origin": "https://app.test"},
            {"origin": "http://app.test:8080"},
            {"nonce": "another-nonce-of-the-server.0123"},
            {"key": replace(KEY, region="eu-west-2")},
        ],
        ids=str,
    )
    def test_a_proof_for_somebody_else_does_not_verify(
        self, keys: Keys, sts: Sts, elsewhere: dict[str, str]
    ) -> None:
        with pytest.raises(LoginNeeded):
            check(sts, sign(keys, **elsewhere))  # type: ignore[arg-type]  # a test's shorthand

    def test_a_presigned_request_of_another_tool_does_not_verify(
        self, keys: Keys, sts: Sts
    ) -> None:
        """As kubectl's: it is good at STS, for a cluster."""
        bare = unsigned(KEY, ORIGIN, NONCE)
        headers = (bare.headers[0], ("x-k8s-aws-id", "cluster"))
        with pytest.raises(LoginNeeded):
            check(sts, presigned(keys, replace(bare, headers=headers), expires=60))


def presigned(keys: Keys, request: StsRequest, expires: int = 300) -> SignedIdentity:
    """What an attacker can make of his keys: the proof in any request that he presigns."""
    date = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    names = "%3B".join(sorted(name for name, _ in request.headers))
    scope = f"{keys.access_key_id}%2F{date[:8]}%2Feu-west-1%2Fsts%2Faws4_request"
    query = (
        f"&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={scope}&X-Amz-Date={date}"
        f"&X-Amz-Expires={expires}&X-Amz-SignedHeaders={names}"
    )
    url = f"https://{dict(request.headers)['host']}{request.target}{query}"
    made = AWSRequest(method="GET", url=url, headers=dict(request.headers))
    made.context["timestamp"] = date
    signer = SigV4Auth(Credentials(keys.access_key_id, keys.secret_access_key), "sts", "eu-west-1")
    text = signer.string_to_sign(made, signer.canonical_request(made))
    return SignedIdentity(
        date=date, access_key_id=keys.access_key_id, signature=signer.signature(text, made)
    )


def test_the_attackers_tool_makes_good_proofs_too(aws: LocalAws, keys: Keys, sts: Sts) -> None:
    """Else the refusals above would prove nothing."""
    assert check(sts, presigned(keys, unsigned(KEY, ORIGIN, NONCE))).arn == keys.arn


# -- whatever else answers -------------------------------------------------------------------------


def written(**changes: object) -> bytes:
    return json.dumps(
        {"GetCallerIdentityResponse": {"GetCallerIdentityResult": ALICE | changes}}
    ).encode()


NOT_STS: dict[str, bytes] = {
    "nothing": b"",
    "a page": b"<!doctype html><title>Log in to the hotel's network</title>",
    "a list": b"[]",
    "null": b"null",
    "a string": b'"GetCallerIdentityResponse"',
    "another object": b"{}",
    "no result": b'{"GetCallerIdentityResponse":{}}',
    "null in place of a response": b'{"GetCallerIdentityResponse":null}',
    "a list in place of a result": b'{"GetCallerIdentityResponse":{"GetCallerIdentityResult":[]}}',
    "the result at the top": json.dumps({"GetCallerIdentityResult": ALICE}).encode(),
    "names in lower case": json.dumps(GOOD).lower().encode(),
    "no Arn": written(Arn=None),
    "an empty Arn": written(Arn=""),
    "a number for an account": written(Account=111122223333),
    "no account": written(Account="1234"),
    "an account and a newline": written(Account="111122223333\n"),
    "a list of user ids": written(UserId=["AIDA"]),
    "a doubled key": json.dumps(GOOD)
    .replace('"Account"', '"Arn": "arn:aws:iam::111122223333:user/admin", "Account"')
    .encode(),
    "a doubled result": json.dumps(GOOD)
    .replace('"ResponseMetadata"', '"GetCallerIdentityResult": {}, "ResponseMetadata"')
    .encode(),
    "two answers": json.dumps(GOOD).encode() * 2,
    "half an answer": json.dumps(GOOD).encode()[:-1],
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "NaN": json.dumps(GOOD).replace('"AIDAALICE0ALICE0ALICE"', "NaN").encode(),
    "very deep": b"[" * 30_000,
    "over 64 KiB": json.dumps(GOOD).encode() + b" " * 65_536,
}


@pytest.mark.parametrize("body", NOT_STS.values(), ids=NOT_STS.keys())
def test_it_is_not_believed(aws: LocalAws, keys: Keys, sts: Sts, body: bytes) -> None:
    aws.fault("sts", body=body, headers={"Content-Type": "application/json"}, times=None)
    with pytest.raises(AwsUnavailable):
        check(sts, sign(keys))


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(GOOD).encode(),
        json.dumps(GOOD).encode() + b" " * (65_536 - len(json.dumps(GOOD))),
        written(),
        written(SomethingNew={"AWS": ["adds", "members"]}),
    ],
)
def test_it_is_believed(aws: LocalAws, keys: Keys, sts: Sts, body: bytes) -> None:
    aws.fault("sts", body=body)
    assert check(sts, sign(keys)) == CallerIdentity(
        *(ALICE[n] for n in ("Account", "Arn", "UserId"))
    )


NAMES = ["GetCallerIdentityResponse", "GetCallerIdentityResult", "Error", "Code", *ALICE]
JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(list(ALICE.values())),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())


@given(JSON | st.binary(max_size=100), st.sampled_from([200, 302, 403, 500]))
def test_reading_an_answer_never_raises_anything_else(body: bytes, status: int) -> None:
    try:
        found = identity_check.read(status, body)
    except IamAuthError:
        return
    assert (status, found.account.isdecimal()) == (200, True)


@pytest.mark.parametrize("status", [201, 204, 206, 301, 302, 303, 307, 308])
def test_only_200_is_an_answer_and_nothing_is_followed(
    aws: LocalAws, keys: Keys, sts: Sts, status: int
) -> None:
    with LocalAws() as elsewhere:
        aws.fault(
            "sts",
            status=status,
            body=json.dumps(GOOD).encode(),
            headers={"Location": f"{elsewhere.url}/"},
            times=None,
        )
        with pytest.raises(AwsUnavailable):
            check(sts, sign(keys))
        assert elsewhere.calls == []
    assert len(aws.calls) == 1


def test_an_answer_that_was_cut(aws: LocalAws, keys: Keys, sts: Sts) -> None:
    aws.fault("sts", truncate=True, times=None)
    with pytest.raises(AwsUnavailable):
        check(sts, sign(keys))


def test_a_connection_that_was_dropped_is_tried_once_more(
    aws: LocalAws, keys: Keys, sts: Sts
) -> None:
    aws.fault("sts", drop=True)
    assert check(sts, sign(keys)).arn == keys.arn
    aws.clear_calls()
    aws.fault("sts", drop=True, times=None)
    proof = sign(keys)
    with pytest.raises(AwsUnavailable) as caught:
        check(sts, proof)
    assert len(aws.calls) == 2
    assert caught.value.__cause__ is None
    assert proof.signature not in str(caught.value)


def test_nobody_there(sts: Sts, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{port}")
    with pytest.raises(AwsUnavailable) as caught:
        check(sts, sign(keys))
    assert "Signature" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://", "not a url", "http://127.0.0.1:99999", "ftp://x/"])
def test_an_endpoint_that_makes_no_sense(
    sts: Sts, keys: Keys, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
    with pytest.raises(AwsUnavailable):
        check(sts, sign(keys))


# -- 10 seconds for all of it ----------------------------------------------------------------------

Talk = Callable[[socket.socket, threading.Event], None]


@pytest.fixture
def raw(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Talk], list[bytes]]]:
    """``raw(talk)``: STS is a socket that says what ``talk`` says; gives the heads that came."""
    with ExitStack() as stack:

        def serve(talk: Talk) -> list[bytes]:
            heads: list[bytes] = []
            over = threading.Event()
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def answer(connection: socket.socket) -> None:
                with connection:
                    try:
                        heads.append(head_of(connection))
                        talk(connection, over)
                    except OSError:
                        pass  # the client gave up

            def accept() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

            thread = threading.Thread(target=accept, daemon=True)
            thread.start()
            stack.callback(thread.join, 10)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            stack.callback(over.set)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
            return heads

        yield serve


def head_of(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            break
        head += byte
    return head


def silent(connection: socket.socket, over: threading.Event) -> None:
    over.wait(30)


def drip(text: bytes) -> Talk:
    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(text)
        while not over.wait(0.02):
            connection.sendall(b"x")

    return talk


@pytest.mark.parametrize(
    "talk",
    [silent, drip(b"HTTP/1.1 200 OK\r\nX: "), drip(b"HTTP/1.1 200 OK\r\n\r\n{"), drip(b"")],
    ids=["silent", "a slow head", "a slow body", "a slow status"],
)
def test_it_never_takes_longer(
    sts: Sts,
    keys: Keys,
    raw: Callable[[Talk], list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    talk: Talk,
) -> None:
    assert identity_check.DEADLINE == 10
    monkeypatch.setattr(identity_check, "DEADLINE", 0.4)
    raw(talk)
    began = time.monotonic()
    with pytest.raises(AwsUnavailable):
        check(sts, sign(keys))
    assert time.monotonic() - began < 5


def test_an_endless_body_is_cut_off(
    sts: Sts, keys: Keys, raw: Callable[[Talk], list[bytes]]
) -> None:
    def endless(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not over.is_set():
            connection.sendall(b" " * 4096)

    raw(endless)
    with pytest.raises(AwsUnavailable, match="over 65536 bytes"):
        check(sts, sign(keys))


def test_only_so_many_may_be_stuck(
    sts: Sts,
    keys: Keys,
    raw: Callable[[Talk], list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity_check, "_STUCK", 2)
    monkeypatch.setattr(identity_check, "DEADLINE", 0.2)
    stuck = make_clients(region_name="eu-west-1", environ={})[1]
    heads = raw(drip(b"HTTP/1.1 200 OK\r\nX: "))
    for _ in range(2):
        with pytest.raises(AwsUnavailable, match="longer than"):
            check(stuck, sign(keys))
    with pytest.raises(AwsUnavailable, match="under way"):
        check(stuck, sign(keys))
    assert len(heads) == 2


def test_many_at_once_share_connections(aws: LocalAws, keys: Keys, sts: Sts) -> None:
    proof = sign(keys)
    check(sts, proof)
    with ThreadPoolExecutor(8) as pool:
        callers = list(pool.map(lambda _: check(sts, proof), range(40)))
    assert {caller.arn for caller in callers} == {keys.arn}


# -- what is sent, and where -----------------------------------------------------------------------


def test_what_is_sent(sts: Sts, keys: Keys, raw: Callable[[Talk], list[bytes]]) -> None:
    """The rebuilt request under the host name that was signed, and nothing of the server's own."""

    def good(connection: socket.socket, over: threading.Event) -> None:
        body = json.dumps(GOOD).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    heads = raw(good)
    request = rebuild(sign(keys), KEY, ORIGIN, NONCE)
    assert sts.check_signed_identity(request).arn == ALICE["Arn"]
    line, *fields = heads[0].decode().rstrip("\r\n").split("\r\n")
    assert line == f"GET {request.target} HTTP/1.1"
    sent = sorted((name.lower(), value) for name, value in (f.split(": ", 1) for f in fields))
    ours = [pair for pair in sent if pair[0] not in {"user-agent", "accept-encoding"}]
    assert ours == sorted(request.headers)
    assert ("accept-encoding", "identity") in sent


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """The only authority that botocore knows."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    return made


@pytest.fixture
def internet(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    with ExitStack() as stack:
        made = Internet(authority, stack)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{made.port}")
        yield made


class Internet:
    """Behind a CONNECT proxy: every host, with a certificate of its own (or of ``named``)."""

    def __init__(self, authority: trustme.CA, stack: ExitStack) -> None:
        self._authority = authority
        self.asked: list[str] = []
        self.heads: list[bytes] = []
        self.named = ""
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port: int = listener.getsockname()[1]

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    self._serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        stack.callback(thread.join, 10)
        stack.callback(listener.shutdown, socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket) -> None:
        target = head_of(connection).split(b" ")[1].decode()
        self.asked.append(target)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        name = self.named or target.rpartition(":")[0]
        self._authority.issue_cert(name).configure_cert(context)
        try:
            with context.wrap_socket(connection, server_side=True) as tls:
                self.heads.append(head_of(tls))
                body = json.dumps(GOOD).encode()
                tls.sendall(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(body), body)
                )
        except (ssl.SSLError, OSError):
            pass  # the client did not like our certificate


def fake(key: KeyArn) -> StsRequest:
    proof = SignedIdentity(
        date="20260101T000000Z", access_key_id="AKIAIOSFODNN7EXAMPLE", signature="0" * 64
    )
    return rebuild(proof, key, ORIGIN, NONCE)


@pytest.mark.parametrize(
    ("arn", "host"),
    [
        ("arn:aws:kms:eu-west-1", HOST),
        ("arn:aws:kms:us-east-1", "sts.us-east-1.amazonaws.com"),
        ("arn:aws-cn:kms:cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
        ("arn:aws-us-gov:kms:us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
    ],
)
def test_unless_told_otherwise_it_is_the_regions_own_by_https(
    internet: Internet, arn: str, host: str
) -> None:
    key = parse_key_arn(f"{arn}:111122223333:key/{KEY_ID}")
    sts = make_clients(region_name="eu-central-1", environ={})[1]
    assert sts.check_signed_identity(fake(key)).arn == ALICE["Arn"]
    assert internet.asked == [f"{host}:443"]
    assert f"\r\nhost: {host}\r\n" in internet.heads[0].decode().lower()


def test_a_certificate_for_another_name_is_no_sts(internet: Internet) -> None:
    internet.named = "sts.evil.example"
    sts = make_clients(region_name="eu-west-1", environ={})[1]
    with pytest.raises(AwsUnavailable, match="doesn't match") as caught:
        sts.check_signed_identity(fake(KEY))
    assert b"".join(internet.heads) == b""
    assert "Signature=" not in str(caught.value)


def test_an_unknown_authority_is_no_sts(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    sts = make_clients(region_name="eu-west-1", environ={})[1]
    with pytest.raises(AwsUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        sts.check_signed_identity(fake(KEY))
    assert b"".join(internet.heads) == b""


def endpoint(host: str = HOST) -> str:
    return identity_check.endpoint_for(new_session(), host)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"AWS_STS_REGIONAL_ENDPOINTS": "legacy"},
        {"AWS_USE_FIPS_ENDPOINT": "true"},
        {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
        {"AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:1"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
    ],
    ids=str,
)
def test_no_variant_of_the_endpoint(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for region in ("eu-west-1", "us-east-1"):
        host = f"sts.{region}.amazonaws.com"
        assert endpoint(host) == f"https://{host}"


def test_a_region_of_every_partition_that_botocore_knows() -> None:
    session = new_session()
    for partition, (_, suffix) in PARTITIONS.items():
        for region in session.get_available_regions("sts", partition)[:1]:
            host = f"sts.{region}.{suffix}"
            assert endpoint(host) == f"https://{host}"


def test_the_configured_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1/")
    assert endpoint() == "http://127.0.0.1:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "https://sts.corp.example")
    assert endpoint() == "https://sts.corp.example"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_ENDPOINT_URL_STS")
    Path(os.environ["AWS_CONFIG_FILE"]).write_text(
        "[default]\nservices = local\n[services local]\nsts =\n  endpoint_url = http://127.0.0.1:2\n"
    )
    assert endpoint() == "http://127.0.0.1:2"
