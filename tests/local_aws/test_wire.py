"""Each service answers, and refuses, in its own format."""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.local_aws.errors import NotEmulated, ServiceError
from iam_auth_proxy.local_aws.wire import (
    Operation,
    Request,
    error_answer,
    guess_service,
    read_operation,
)
from tests.support.local_aws import FORM, IDENTITY, RawRequest, form, presign, sign

STS = "{https://sts.amazonaws.com/doc/2011-06-15/}"


def test_sts_in_xml(aws: LocalAws) -> None:
    answer = sign(aws, aws.user("alice").keys()).send(aws)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/xml")
    root = ElementTree.fromstring(answer.body)
    assert root.tag == f"{STS}GetCallerIdentityResponse"
    arn = root.findtext(f"{STS}GetCallerIdentityResult/{STS}Arn")
    assert arn == "arn:aws:iam::111122223333:user/alice"


def test_sts_in_json(aws: LocalAws) -> None:
    alice = aws.user("alice")
    request = presign(aws, alice.keys(), headers={"Accept": "application/json"})
    answer = request.send(aws)
    assert answer.headers["Content-Type"] == "application/json"
    inner = json.loads(answer.body)["GetCallerIdentityResponse"]
    assert inner["GetCallerIdentityResult"] == {
        "Account": "111122223333",
        "Arn": alice.arn,
        "UserId": alice.user_id,
    }
    assert inner["ResponseMetadata"]["RequestId"]
    session = sign(
        aws,
        alice.keys(),
        body=form(Action="GetSessionToken", Version="2011-06-15"),
        headers={**FORM, "Accept": "application/json"},
    ).send(aws)
    made = json.loads(session.body)["GetSessionTokenResponse"]["GetSessionTokenResult"]
    assert made["Credentials"]["Expiration"] > 1_700_000_000


def test_what_is_answered_is_escaped(aws: LocalAws) -> None:
    """A name cannot smuggle elements into an answer (CVE-2020-16250 parsed such leniently)."""
    alice = aws.user("<Arn>&evil</Arn>")
    answer = sign(aws, alice.keys()).send(aws)
    root = ElementTree.fromstring(answer.body)
    assert len(list(root.iter(f"{STS}Arn"))) == 1
    assert root.findtext(f"{STS}GetCallerIdentityResult/{STS}Arn") == alice.arn
    body = form(Action="<x>&amp;", Version="2011-06-15")
    refused = sign(aws, alice.keys(), body=body).send(aws)
    message = ElementTree.fromstring(refused.body).findtext(f"{STS}Error/{STS}Message")
    assert message == "the embedded AWS has no operation sts:<x>&amp;"


def unsigned(service: str) -> RawRequest:
    headers = {"Host": "127.0.0.1"}
    if service == "kms":
        headers["X-Amz-Target"] = "TrentService.Encrypt"
    if service == "dynamodb":
        headers["X-Amz-Target"] = "DynamoDB_20120810.GetItem"
    target = {"sts": f"/?{IDENTITY}", "iam": "/?Action=GetUser&Version=2010-05-08", "s3": "/a/b"}
    return RawRequest("GET", target.get(service, "/"), headers)


@pytest.mark.parametrize(
    ("service", "status", "kind", "pattern"),
    [
        (
            "sts",
            403,
            "text/xml",
            r'<ErrorResponse xmlns="https://sts\.amazonaws\.com/doc/2011-06-15/"><Error>'
            r"<Type>Sender</Type><Code>MissingAuthenticationToken</Code><Message>.*</Message>"
            r"</Error><RequestId>.*</RequestId></ErrorResponse>",
        ),
        ("iam", 403, "text/xml", r".*<Code>MissingAuthenticationToken</Code>.*"),
        (
            "kms",
            400,
            "application/x-amz-json-1.1",
            r'\{"__type": "MissingAuthenticationTokenException", "message": ".*"\}',
        ),
        (
            "dynamodb",
            400,
            "application/x-amz-json-1.0",
            r'\{"__type": "MissingAuthenticationTokenException", "message": ".*"\}',
        ),
        ("s3", 403, "application/xml", r"<\?xml .*\?><Error><Code>AccessDenied</Code>.*</Error>"),
    ],
)
def test_errors(aws: LocalAws, service: str, status: int, kind: str, pattern: str) -> None:
    answer = unsigned(service).send(aws)
    assert (answer.status, answer.headers["Content-Type"]) == (status, kind)
    assert re.fullmatch(pattern, answer.body.decode(), re.DOTALL)
    assert aws.calls[-1].service == service


def test_a_json_error_of_sts(aws: LocalAws) -> None:
    request = RawRequest("GET", f"/?{IDENTITY}", {"Host": "x", "Accept": "application/json"})
    answer = request.send(aws)
    error = json.loads(answer.body)["Error"]
    assert (answer.status, error["Code"]) == (403, "MissingAuthenticationToken")


@pytest.mark.parametrize(
    ("service", "headers", "body", "code"),
    [
        ("kms", {}, b"{}", "UnknownOperationException"),
        ("kms", {"X-Amz-Target": "DynamoDB_20120810.GetItem"}, b"{}", "UnknownOperationException"),
        ("kms", {"X-Amz-Target": "TrentService.Encrypt"}, b"{", "SerializationException"),
        ("kms", {"X-Amz-Target": "TrentService.Encrypt"}, b"[]", "SerializationException"),
        ("kms", {"X-Amz-Target": "TrentService.Encrypt"}, b"\xff", "SerializationException"),
        (
            "kms",
            {"X-Amz-Target": "TrentService.Encrypt"},
            b'{"KeyId":"a","KeyId":"b"}',
            "SerializationException",
        ),
        ("kms", {"X-Amz-Target": "TrentService.Encrypt"}, b"[" * 9999, "SerializationException"),
        ("sts", FORM, b"", "MissingAction"),
        ("sts", FORM, b"Action=GetUser&Version=2010-05-08", "InvalidAction"),
        ("sts", {"Content-Type": "application/json"}, b"{}", "MalformedInput"),
        ("sts", FORM, b"Action=a&ACTION=b", "InvalidQueryParameter"),
    ],
)
def test_what_cannot_be_read(service: str, headers: dict[str, str], body: bytes, code: str) -> None:
    with pytest.raises(ServiceError) as caught:
        read_operation(service, Request("POST", "/", tuple(headers.items()), body))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"KeyId": 1, "Plaintext": "eA=="}, "SerializationException"),
        ({"KeyId": "x", "Plaintext": "!"}, "SerializationException"),
        ({"KeyId": "x", "Plaintext": ""}, "ValidationException"),
        ({"KeyId": "x"}, "ValidationException"),
        ({"KeyId": "x" * 2049, "Plaintext": "eA=="}, "ValidationException"),
        (
            {"KeyId": "x", "Plaintext": "eA==", "EncryptionContext": {"a": 1}},
            "SerializationException",
        ),
        ({"KeyId": "x", "Plaintext": "eA==", "EncryptionContext": []}, "SerializationException"),
        ({"KeyId": "x", "Plaintext": "eA==", "Whatever": 1}, "NotImplemented"),
    ],
)
def test_parameters_of_the_wrong_kind(
    aws: LocalAws, parameters: dict[str, object], code: str
) -> None:
    answer = sign(
        aws,
        aws.root(),
        service="kms",
        body=json.dumps(parameters),
        headers={"X-Amz-Target": "TrentService.Encrypt"},
    ).send(aws)
    assert json.loads(answer.body)["__type"] == code


def test_unknown_errors_are_not_made_into_answers() -> None:
    with pytest.raises(KeyError):
        error_answer("sts", KeyError("x"), Request("GET", "/", ()))
    answer = error_answer("kms", NotEmulated("parameter X"), Request("POST", "/", ()))
    assert (answer.status, answer.code) == (501, "NotImplemented")


def test_guessing_the_service() -> None:
    assert guess_service(Request("GET", "/", ())) == "sts"
    assert guess_service(Request("GET", "/bucket", ())) == "s3"
    assert guess_service(Request("POST", "/", (), b"Version=2010-05-08")) == "iam"


PIECES = st.sampled_from(
    (
        *(b"Action", b"action", b"Version", b"=", b"&", b"2011-06-15", b"%", b"%ff", b"+", b"\xff"),
        *(b"{", b"}", b'"a"', b":", b"[", b"]", b",", b"1", b"NaN", b"9" * 5000, b"x-amz-date"),
    )
)
NOISE = st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=10).map(b"".join))


@given(
    st.sampled_from(("sts", "iam", "kms", "dynamodb")),
    st.sampled_from(("GET", "POST")),
    NOISE.map(lambda raw: "/?" + raw.decode("latin-1")),
    st.sampled_from(
        ("", "TrentService.Encrypt", "DynamoDB_20120810.", "DynamoDB_20120810.GetItem")
    ),
    st.sampled_from(("", "application/x-www-form-urlencoded; charset=utf-8", "text/plain")),
    NOISE,
)
@example("kms", "POST", "/", "TrentService.Encrypt", "", b'{"a":1,"a":1}')
@example("kms", "POST", "/", "TrentService.Encrypt", "", b"[" * 100_000)
@example("sts", "POST", "/?action=X", "", "", b"")
@settings(max_examples=300)
def test_any_request_is_an_operation_or_an_error_of_the_service(
    service: str, method: str, target: str, asked: str, kind: str, body: bytes
) -> None:
    headers = (("X-Amz-Target", asked), ("Content-Type", kind))
    request = Request(method, target, headers, body)
    try:
        operation = read_operation(service, request)
    except ServiceError as error:
        status = error_answer(service, error, request).status
    else:
        assert isinstance(operation.parameters, dict)
        status = 200 if operation.action else 500
    assert status in (200, 400)


@given(st.dictionaries(st.from_regex(r"[B-U][a-z]{1,8}", fullmatch=True), st.text(max_size=12)))
def test_a_form_is_read_as_it_was_written(parameters: dict[str, str]) -> None:
    parameters.pop("Version", None)
    assume(len({name.lower() for name in parameters}) == len(parameters))
    body = urlencode({"Action": "X", "Version": "2011-06-15", **parameters}).encode()
    kind = (("Content-Type", "application/x-www-form-urlencoded"),)
    assert read_operation("sts", Request("POST", "/", kind, body)) == Operation("X", parameters)
