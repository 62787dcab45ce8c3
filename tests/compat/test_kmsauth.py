"""kmsauth's own names: what it documents, what both do, and tokens to and from the original."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import kmsauth as original
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.compat import kmsauth
from iam_auth_proxy.compat.kmsauth.utils import lru
from iam_auth_proxy.errors import AwsUnavailable, BadServiceToken
from tests.compat.conftest import Stage, either
from tests.support.processes import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

TO = "confidant-production"
REGION = "eu-west-1"


@pytest.fixture(autouse=True)
def no_clients_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (original, kmsauth):
        monkeypatch.setattr(module.services, "CLIENT_CACHE", {})


def generator(module: Any, key: str, version: int = 2, **context: str) -> Any:
    context = {"to": TO, "from": "example-production"} | context
    return module.KMSTokenGenerator(key, context, REGION, token_version=version)


# -- the code that its documentation prints -------------------------------------------------------


@pytest.fixture
def documented(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The keys that the documentation names; the last of them by its id."""
    for name in ("authnz-production", "authnz-users-production"):
        stage.aws.key(f"alias/{name}")
    return stage.aws.key("alias/more-users").arn.rpartition("/")[2]


@pytest.mark.parametrize("module", either("kmsauth"), indirect=True)
def test_generating_and_validating(module: ModuleType, documented: str) -> None:
    kmsauth = module
    validator = kmsauth.KMSTokenValidator(
        ["alias/authnz-production"],
        ["alias/authnz-users-production", documented],
        "confidant-production",
        REGION,
    )
    # user to service authentication
    generator = kmsauth.KMSTokenGenerator(
        "alias/authnz-users-production",
        {"to": "confidant-production", "from": "rlane", "user_type": "user"},
        REGION,
    )
    username = generator.get_username()
    token = generator.get_token()
    assert username == "2/user/rlane"
    found = validator.decrypt_token(username, token)
    assert found["key_alias"] == "alias/authnz-users-production"
    assert set(found["payload"]) == {"not_before", "not_after"}
    # service to service authentication
    generator = kmsauth.KMSTokenGenerator(
        "alias/authnz-production",
        {"to": "confidant-production", "from": "example-production", "user_type": "service"},
        REGION,
    )
    username = generator.get_username()
    token = generator.get_token()
    assert username == "2/service/example-production"
    validator.decrypt_token(username, token)
    # by the id of a key
    generator = kmsauth.KMSTokenGenerator(
        documented, {"to": "confidant-production", "from": "rlane", "user_type": "user"}, REGION
    )
    found = validator.decrypt_token("2/user/rlane", generator.get_token())
    assert found["key_alias"] == documented


@pytest.mark.parametrize("module", either("kmsauth"), indirect=True)
def test_extra_context(module: ModuleType, documented: str) -> None:
    kmsauth = module
    validator = kmsauth.KMSTokenValidator(
        ["alias/authnz-production"],
        ["alias/authnz-users-production", documented],
        "confidant-production",
        REGION,
        extra_context={"action": "create_resource"},
        max_pool_connections=100,
        connect_timeout=1,
        read_timeout=5,
    )
    made = generator(
        kmsauth, "alias/authnz-production", user_type="service", action="create_resource"
    )
    validator.decrypt_token(made.get_username(), made.get_token())
    other = generator(kmsauth, "alias/authnz-production", user_type="service")
    with pytest.raises(kmsauth.TokenValidationError):
        validator.decrypt_token(other.get_username(), other.get_token())


# -- tokens both ways ------------------------------------------------------------------------------


@pytest.mark.parametrize(("made_by", "read_by"), [(kmsauth, original), (original, kmsauth)])
@pytest.mark.parametrize(
    ("version", "user_type"), [(1, "service"), (2, "service"), (2, "user")], ids=str
)
def test_tokens_both_ways(
    stage: Stage, made_by: Any, read_by: Any, version: int, user_type: str
) -> None:
    key = stage.users if user_type == "user" else stage.services
    context = {"user_type": user_type} if version == 2 else {}
    made = generator(made_by, key.arn, version, **context)
    validator = read_by.KMSTokenValidator([stage.services.arn], [stage.users.arn], TO, REGION)
    found = validator.decrypt_token(made.get_username(), made.get_token())
    assert found["key_alias"] == key.arn


def test_the_payload_is_the_originals(stage: Stage) -> None:
    made = generator(kmsauth, stage.services.arn, user_type="service")
    username, token = made.get_username(), made.get_token()
    ours, theirs = (
        module.KMSTokenValidator([stage.services.arn], None, TO, REGION)
        for module in (kmsauth, original)
    )
    assert ours.decrypt_token(username, token) == theirs.decrypt_token(username, token)
    blob = base64.b64decode(token)
    opened = stage.kms.decrypt(
        stage.services.arn, blob, {"to": TO, "from": "example-production", "user_type": "service"}
    )
    assert len(opened.plaintext) == 67
    not_before, not_after = json.loads(opened.plaintext).values()
    assert not_before[-1] == not_after[-1] == "Z"


def test_a_cache_file_is_the_originals_too(stage: Stage, tmp_path: Path) -> None:
    """While one machine moves over: the original uses what we cached."""
    file = str(tmp_path / "token")
    context = {"to": TO, "from": "ci", "user_type": "service"}
    ours, theirs = (
        module.KMSTokenGenerator(stage.services.arn, context, REGION, token_cache_file=file)
        for module in (kmsauth, original)
    )
    token = ours.get_token()
    assert theirs.get_token() == token.decode()
    Path(file).unlink()
    theirs.get_token()
    assert ours.get_token()  # of which key it is the original does not say: a new one


# -- settings, messages ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"minimum_token_version": 0}, "Invalid minimum_token_version provided."),
        ({"minimum_token_version": 3}, "Invalid minimum_token_version provided."),
        ({"maximum_token_version": 0}, "Invalid maximum_token_version provided."),
        ({"maximum_token_version": 4}, "Invalid maximum_token_version provided."),
        ({"minimum_token_version": 2, "maximum_token_version": 1}, "can not be greater than"),
        ({"auth_key": ("alias/a",)}, "must be a string, list, or None"),
    ],
    ids=str,
)
@pytest.mark.parametrize("module", either("kmsauth"), indirect=True)
def test_settings_of_a_validator(module: Any, arguments: dict[str, Any], said: str) -> None:
    given = {"auth_key": "alias/a", "user_auth_key": None} | arguments
    with pytest.raises(module.ConfigurationError, match=said):
        module.KMSTokenValidator(to_auth_context=TO, region=REGION, **given)


def test_settings_that_only_we_refuse() -> None:
    def validator(**arguments: Any) -> Any:
        given = {"auth_key": ["alias/a"], "to_auth_context": TO} | arguments
        return kmsauth.KMSTokenValidator(user_auth_key=None, region=REGION, **given)

    for arguments in (
        {"auth_key": ["not a key"]},
        {"to_auth_context": ""},
        {"extra_context": {"a": 5}},
        {"scoped_auth_keys": {"alias/b": "x", "alias/c": "x"}},
    ):
        with pytest.raises(kmsauth.ConfigurationError):
            validator(**arguments)


@pytest.mark.parametrize(
    ("context", "version", "said"),
    [
        ({}, 2, "from missing from auth_context."),
        ({"from": "a"}, 2, "to missing from auth_context."),
        ({"from": "a", "to": "b"}, 2, "user_type missing from auth_context."),
        ({"from": "a", "to": "b", "user_type": "user"}, 3, "Invalid token_version provided."),
    ],
    ids=str,
)
@pytest.mark.parametrize("module", either("kmsauth"), indirect=True)
def test_settings_of_a_generator(
    module: Any, context: dict[str, str], version: int, said: str
) -> None:
    with pytest.raises(module.ConfigurationError, match=said):
        module.KMSTokenGenerator("alias/a", context, REGION, token_version=version)


def test_a_generator_refuses_what_no_validator_takes() -> None:
    good = {"from": "a", "to": "b", "user_type": "service"}
    for context, lifetime, version in (
        (good | {"user_type": "robot"}, 10, 2),
        (good | {"user_type": "user"}, 10, 1),
        (good | {"to": "no good"}, 10, 2),
        (good | {"To": "x"}, 10, 2),
        (good | {"from": 5}, 10, 2),
        (good, 1, 2),
        (good, float("nan"), 2),
        (good, 3000, 2),
    ):
        with pytest.raises(kmsauth.ConfigurationError):
            kmsauth.KMSTokenGenerator(
                "alias/a", context, REGION, token_lifetime=lifetime, token_version=version
            )


@pytest.mark.parametrize("module", either("kmsauth"), indirect=True)
def test_fields_of_a_username(module: Any) -> None:
    validator = module.KMSTokenValidator("alias/a", None, TO, REGION)
    for username, fields in (("x", (1, "service", "x")), ("2/user/x", (2, "user", "x"))):
        asked = ("version", "user_type", "from")
        found = tuple(validator.extract_username_field(username, each) for each in asked)
        assert found == fields
    assert validator.extract_username_field("2/user/x", "else") is None
    with pytest.raises(module.TokenValidationError, match="Unsupported username format"):
        validator.extract_username_field("2/user/x/y", "from")


class Stats:
    def __init__(self) -> None:
        self.said: list[str] = []

    def incr(self, name: str) -> None:
        self.said.append(name)

    def timer(self, name: str) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def timed() -> Any:
            yield
            self.said.append(name)

        return timed()


@pytest.mark.parametrize("module", either("kmsauth"), indirect=True)
def test_statistics(module: Any, stage: Stage) -> None:
    stats = Stats()
    validator = module.KMSTokenValidator(stage.services.arn, None, TO, REGION, stats=stats)
    made = generator(module, stage.services.arn, user_type="service")
    token = made.get_token()
    for _ in range(2):
        validator.decrypt_token(made.get_username(), token)
    assert stats.said == ["token_version_2", "kms_decrypt_token", "token_version_2"]


@pytest.mark.parametrize("module", either("kmsauth"), indirect=True)
def test_other_credentials(module: Any, stage: Stage) -> None:
    names = {"AccessKeyId": stage.keys.access_key_id, "SecretAccessKey": "x", "SessionToken": "y"}
    context = {"to": TO, "from": "ci", "user_type": "service"}
    made = module.KMSTokenGenerator(stage.services.arn, context, REGION, aws_creds=names)
    with pytest.raises(module.TokenGenerationError):
        made.get_token()
    with pytest.raises(KeyError):
        module.KMSTokenGenerator(stage.services.arn, context, REGION, aws_creds={"a": "b"})


@pytest.mark.parametrize("module", either("kmsauth"), indirect=True)
def test_another_endpoint(module: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"):
        monkeypatch.delenv(name, raising=False)
    context = {"to": TO, "from": "ci", "user_type": "service"}
    made = module.KMSTokenGenerator(stage.services.arn, context, REGION, endpoint_url=stage.aws.url)
    validator = module.KMSTokenValidator(
        stage.services.arn, None, TO, REGION, endpoint_url=stage.aws.url
    )
    assert validator.decrypt_token(made.get_username(), made.get_token())


def test_no_key_no_token(stage: Stage) -> None:
    made = generator(kmsauth, stage.services.arn, user_type="service")
    for keys in ((None, None), (None, [stage.users.arn])):
        validator = kmsauth.KMSTokenValidator(*keys, TO, REGION)
        with pytest.raises(kmsauth.TokenValidationError, match=r"\(wrong KMS key\)"):
            validator.decrypt_token(made.get_username(), made.get_token())


@pytest.mark.parametrize("token", [5, None, b"\xff", "", "x", "b'AQID'"], ids=repr)
def test_what_is_no_token(stage: Stage, token: Any) -> None:
    validator = kmsauth.KMSTokenValidator(stage.services.arn, None, TO, REGION)
    with pytest.raises(kmsauth.TokenValidationError, match="Authentication error"):
        validator.decrypt_token("2/service/ci", token)
    assert stage.calls() == []


def test_a_cache_file_that_cannot_be(stage: Stage, tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "file").write_text("")
    context = {"to": TO, "from": "ci", "user_type": "service"}
    for place, said in (
        (tmp_path, "it is not a file"),
        (tmp_path / "file/token", "is not written"),
    ):
        made = kmsauth.KMSTokenGenerator(
            stage.services.arn, context, REGION, token_cache_file=str(place)
        )
        caplog.clear()
        assert made.get_token() != made.get_token()
        assert said in caplog.text


@pytest.mark.parametrize("text", ["", "[]", "{", '{"token": 5}', "\0", "x" * 70_000])
def test_a_cache_file_that_is_none(stage: Stage, tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    context = {"to": TO, "from": "ci", "user_type": "service"}
    made = kmsauth.KMSTokenGenerator(
        stage.services.arn, context, REGION, token_cache_file=str(file)
    )
    file.write_text(text)
    token = made.get_token()
    assert made.get_token() == token


@pytest.mark.parametrize("module", either("kmsauth"), indirect=True)
def test_which_keys_do(module: Any, stage: Stage) -> None:
    """What the original's own tests look at."""
    validator = module.KMSTokenValidator(
        ["alias/services"], ["alias/users"], TO, REGION, {stage.users.arn: "here"}
    )
    services, users = stage.services.arn, stage.users.arn
    assert [validator._valid_service_auth_key(arn) for arn in (services, users, "")] == [
        True,
        True,
        False,
    ]
    assert [validator._valid_user_auth_key(arn) for arn in (services, users)] == [False, True]
    assert validator.KEY_METADATA["alias/users"]["KeyMetadata"]["Arn"] == users


@pytest.mark.parametrize("module", either("kmsauth"), indirect=True)
def test_resources(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.services, "RESOURCE_CACHE", {})
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    one, same = (module.services.get_boto_resource("s3", REGION, **keys) for _ in range(2))
    assert one is same
    session = module.services.get_boto_resource("s3", REGION, **keys, aws_session_token="c")
    assert session is not one


def test_forgetting(stage: Stage) -> None:
    made = generator(kmsauth, stage.services.arn, user_type="service")
    validator = kmsauth.KMSTokenValidator(stage.services.arn, None, TO, REGION)
    username, token = made.get_username(), made.get_token()
    stage.calls()
    for _ in range(2):
        validator.decrypt_token(username, token)
    assert stage.calls() == ["Decrypt"]
    validator.TOKENS = lru.LRUCache(16)
    validator.decrypt_token(username, token)
    assert stage.calls() == ["Decrypt"]
    assert validator.TOKENS.capacity == 16


def test_the_cache() -> None:
    cache = lru.LRUCache(1)
    cache["a"] = None
    assert cache["a"] is None
    cache["b"] = 2
    assert "a" not in cache
    assert len(cache) == 1
    with pytest.raises(KeyError):
        cache["a"]


# -- the six stories of the mailing list ----------------------------------------------------------


def test_the_six_stories(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """The messages are the original's; which field it is stands in the log and in the cause."""
    with pytest.raises(kmsauth.ConfigurationError, match="maximum_token_version"):
        kmsauth.KMSTokenValidator(None, stage.users.arn, TO, REGION, maximum_token_version=4)
    validator = kmsauth.KMSTokenValidator(None, stage.users.arn, TO, REGION)
    context = {"to": TO, "from": "russ", "user_type": "user"}

    def seal(context: dict[str, str], minutes: int) -> str:
        times = (time.time() - 180, time.time() + 60 * minutes - 180)
        texts = [time.strftime(kmsauth.TIME_FORMAT, time.gmtime(each)) for each in times]
        payload = json.dumps(dict(zip(("not_before", "not_after"), texts, strict=True)))
        blob = stage.kms.encrypt(stage.users.arn, payload.encode(), context).ciphertext
        return base64.b64encode(blob).decode()

    good = seal(context, 10)
    for username, token, said, field in (
        ("4/user/russ", good, "Unacceptable token version.", "version"),
        ("2/user/russ", seal({"to": TO, "from": "russ"}, 10), "General error", "user_type"),
        ("2/user/russ", seal(context, 999), "Token lifetime exceeded", "lifetime"),
        ("2/user/russ", str(good.encode()), "General error", "token"),
    ):
        caplog.clear()
        with pytest.raises(kmsauth.TokenValidationError, match=said) as refused:
            validator.decrypt_token(username, token)
        assert isinstance(refused.value.__cause__, BadServiceToken)
        assert refused.value.__cause__.field == field
        assert f"not accepted: {field}: " in caplog.text
    assert validator.decrypt_token("2/user/russ", good)


# -- AWS that does not answer ---------------------------------------------------------------------


def failing(**faults: Any) -> Any:
    def client(*arguments: Any, **named: Any) -> Any:
        return SimpleNamespace(**faults)

    return client


def test_half_an_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = failing(
        encrypt=lambda **asked: {},
        decrypt=lambda **asked: {"Plaintext": b"{}"},
    )
    monkeypatch.setattr(kmsauth.services, "get_boto_client", answer)
    made = generator(kmsauth, stage.services.arn, user_type="service")
    with pytest.raises(kmsauth.ServiceConnectionError) as refused:
        made.get_token()
    assert str(refused.value) == ""
    assert isinstance(refused.value.__cause__, AwsUnavailable)
    validator = kmsauth.KMSTokenValidator(stage.services.arn, None, TO, REGION)
    with pytest.raises(kmsauth.TokenValidationError, match="General error"):
        validator.decrypt_token("2/service/ci", "AQID")


def test_not_allowed_to_decrypt(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    made = generator(kmsauth, stage.services.arn, user_type="service")
    token = made.get_token()
    stage.aws.fault("kms", "Decrypt", code="UnrecognizedClientException", times=None)
    validator = kmsauth.KMSTokenValidator(stage.services.arn, None, TO, REGION)
    with pytest.raises(kmsauth.TokenValidationError, match="General error"):
        validator.decrypt_token(made.get_username(), token)
    assert {record.name for record in caplog.records if record.levelno >= logging.WARNING} <= {
        "iam_auth_proxy.compat.kmsauth",
        "iam_auth_proxy.tokens.verifier",
    }


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"code": "AccessDeniedException"}, "General error"),
        ({"code": "ThrottlingException"}, "Failure connecting"),
        ({"drop": True}, "Failure connecting"),
    ],
    ids=str,
)
@pytest.mark.parametrize("action", ["DescribeKey", "Decrypt"])
def test_what_aws_answers(stage: Stage, action: str, fault: dict[str, Any], said: str) -> None:
    made = generator(kmsauth, stage.services.arn, user_type="service")
    token = made.get_token()
    stage.aws.fault("kms", action, times=None, **fault)
    validator = kmsauth.KMSTokenValidator("alias/services", None, TO, REGION)
    if (action, fault.get("code")) == ("Decrypt", "AccessDeniedException"):
        said = "wrong KMS key"  # one that the role may not use opens nothing
    with pytest.raises(kmsauth.TokenValidationError, match=said):
        validator.decrypt_token(made.get_username(), token)


def test_one_key_that_stands_for_two_accounts(stage: Stage) -> None:
    stage.aws.client("kms", stage.keys).create_alias(
        AliasName="alias/again", TargetKeyId=stage.services.arn.rpartition("/")[2]
    )
    validator = kmsauth.KMSTokenValidator(
        None, None, TO, REGION, {"alias/services": "one", "alias/again": "two"}
    )
    made = generator(kmsauth, stage.services.arn, user_type="service")
    with pytest.raises(kmsauth.TokenValidationError, match="General error"):
        validator.decrypt_token(made.get_username(), made.get_token())


# -- whatever comes --------------------------------------------------------------------------------

_USERNAMES = st.text() | st.builds(
    "/".join, st.lists(st.sampled_from(["1", "2", "user", "service", "ci", "", "٢", "a b"]))
)


@given(username=_USERNAMES, token=st.text() | st.binary() | st.sampled_from(["AQID", "AQIDBA=="]))
def test_nothing_but_its_own_error_comes_out(username: str, token: str | bytes) -> None:
    def decrypt(**asked: Any) -> dict[str, Any]:
        return {"Plaintext": b"{}", "KeyId": asked["KeyId"]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kmsauth.services, "get_boto_client", failing(decrypt=decrypt))
        arn = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
        validator = kmsauth.KMSTokenValidator([arn], [arn], TO, REGION)
    with pytest.raises(kmsauth.TokenValidationError):
        validator.decrypt_token(username, token)


@pytest.mark.parametrize("name", ["kmsauth", "lazycred", "keys_management"])
def test_boto3_is_imported_when_it_is_needed(name: str) -> None:
    code = f"import sys, iam_auth_proxy.compat.{name}; sys.exit('botocore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0
