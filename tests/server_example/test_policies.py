"""The policies that the example ships: enough for a sign-in, and nothing in them is idle."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import server_example
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.server import Gate
from iam_auth_proxy.server.facts import Reply, RequestFacts
from tests.server.originalproxy import Answer, OriginalProxy

APP, PEOPLE = "111122223333", "222222222222"
KEY = f"arn:aws:kms:eu-west-1:{APP}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SECRET = "N5yhfMZ6m0lTqR2cWv8sJp3XbKdGzUeA9o7iQ1tB4nE"
FOLDER = Path(server_example.__file__).parent / "policies"


def policies() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}


def sign_in(documents: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """The status at the end of a legacy sign-in under these policies; 0 if Encrypt is denied."""
    with LocalAws(accounts=(APP, PEOPLE)) as aws:
        key = aws.key(alias="app", policy=documents["key-original"])
        text = {name: json.dumps(each).replace(KEY, key.arn) for name, each in documents.items()}
        person = aws.user("ann", policies=[text["user-original"]], account=PEOPLE)
        server = aws.user("app", policies=[text["server"]])
        for name, value in (aws.env | server.keys().env).items():
            monkeypatch.setenv(name, value)
        gate = Gate.from_env(
            # By its alias, so that DescribeKey is needed.
            {"SECRET_KEY": SECRET, "KMS_KEY_ID": "alias/app", "AWS_ACCOUNT_ID": PEOPLE}
        )
        refused = check(gate, "/")
        if refused.status != 401:
            return refused.status
        try:
            location = OriginalProxy(aws, person.keys()).location(refused, "/")
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDeniedException":
                raise
            return 0
        return check(gate, location.removeprefix("//app.test")).status


def check(gate: Gate, target: str) -> Answer:
    path, _, query = target.partition("?")
    answer = gate.check(
        RequestFacts("GET", "http", path, query, (("host", "app.test"),)), time.time()
    )
    assert isinstance(answer, Reply)
    return Answer(answer.status, list(answer.headers), answer.body)


def test_they_are_whole_documents() -> None:
    tokens = {"token-service", "token-user"}  # of use at tests/test_policies.py
    assert set(policies()) == {"key", "key-original", "server", "user", "user-original"} | tokens
    for document in policies().values():
        assert document["Version"] == "2012-10-17"
        assert all(statement["Sid"].isalnum() for statement in document["Statement"])


def test_they_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sign_in(policies(), monkeypatch) == 302


@pytest.mark.parametrize(
    ("name", "sid", "status"),
    [
        ("key-original", "OwnAccountDecides", 503),
        ("key-original", "OtherAccountCanEncrypt", 0),
        ("server", "ServerCanDecrypt", 503),
        ("user-original", "UserCanEncrypt", 0),
    ],
)
def test_no_statement_is_idle(
    monkeypatch: pytest.MonkeyPatch, name: str, sid: str, status: int
) -> None:
    documents = policies()
    statements = documents[name]["Statement"]
    documents[name]["Statement"] = [each for each in statements if each["Sid"] != sid]
    assert len(documents[name]["Statement"]) == len(statements) - 1
    if not documents[name]["Statement"]:  # IAM takes no empty list: one that is of no use
        unused = {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}
        documents[name]["Statement"] = [unused]
    assert sign_in(documents, monkeypatch) == status


@pytest.mark.parametrize("action", ["kms:Decrypt", "kms:DescribeKey"])
def test_no_action_of_the_servers_is_idle(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    documents = policies()
    documents["server"]["Statement"][0]["Action"].remove(action)
    assert sign_in(documents, monkeypatch) == 503


def test_a_person_may_encrypt_for_the_app_and_nothing_else() -> None:
    (statement,) = policies()["user"]["Statement"]
    assert (statement["Action"], statement["Resource"]) == ("kms:Encrypt", KEY)
    (statement,) = policies()["server"]["Statement"]
    assert statement["Resource"] == KEY
