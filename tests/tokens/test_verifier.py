"""What the verifier accepts, what it asks KMS, and the original's defects, each of them closed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from iam_auth_proxy.aws.base import Decrypted, Encrypted
from iam_auth_proxy.aws.clients import make_clients
from iam_auth_proxy.errors import (
    AwsError,
    AwsUnavailable,
    BadServiceToken,
    CiphertextInvalid,
    CiphertextOfOtherKey,
    ConfigError,
    KeyUnusable,
    LoginNeeded,
)
from iam_auth_proxy.local_aws import allow
from iam_auth_proxy.names import parse_key_reference
from iam_auth_proxy.protocol.service_token import Caller, CallerType
from iam_auth_proxy.tokens import verifier as verifiers
from iam_auth_proxy.tokens.accepts import MAX_KEYS, Accepts
from iam_auth_proxy.tokens.verifier import Verifier
from tests.tokens.conftest import ALICE, CI, OLD_CI, TO, Stage


def refused(verifier: Verifier, username: str, token: str, now: float | None = None) -> str:
    """The field for which it is refused."""
    with pytest.raises(BadServiceToken) as error:
        verifier.verify(username, token, time.time() if now is None else now)
    return error.value.field


@pytest.mark.parametrize("caller", [ALICE, CI], ids=str)
def test_a_good_token(stage: Stage, caller: Caller) -> None:
    token, verifier, now = stage.seal(caller), stage.verifier(), time.time()
    stage.calls()
    assert verifier.known(str(caller), token.text, now) is None
    verified = verifier.verify(str(caller), token.text, now)
    assert (verified.caller, verified.window) == (caller, token.window)
    assert (verified.key_arn, verified.account) == (token.key_arn, "")
    assert stage.calls() == ["Decrypt"]
    assert verifier.known(str(caller), token.text, now) == verified
    assert verifier.verify(str(caller), token.text, now) == verified
    assert stage.calls() == []


# -- what is refused before KMS is asked -----------------------------------------------------------


@pytest.mark.parametrize(
    ("username", "token", "field"),
    [
        ("x/service/ci", "AQICAHg=", "version"),
        ("4/service/ci", "AQICAHg=", "version"),
        ("ci", "AQICAHg=", "version"),
        ("2/robot/ci", "AQICAHg=", "user_type"),
        ("2/service/a b", "AQICAHg=", "from"),
        ("2/service/ci", "b'AQICAHg='", "token"),
        ("2/service/ci", "AQICAHg", "token"),
        ("2/service/ci", "", "token"),
        ("2/service/ci", "A" * 4000, "token"),
    ],
)
def test_kms_is_not_asked_about(stage: Stage, username: str, token: str, field: str) -> None:
    assert refused(stage.verifier(), username, token) == field
    assert stage.calls() == []


def test_a_type_that_does_not_come_in_is_not_asked_about(stage: Stage) -> None:
    """The original looked at the type when KMS had answered."""
    token = stage.seal(ALICE)
    stage.calls()
    services = frozenset({CallerType.SERVICE})
    assert refused(stage.verifier(types=services), str(ALICE), token.text) == "user_type"
    assert refused(stage.verifier(user_keys=()), str(ALICE), token.text) == "user_type"
    assert stage.calls() == []


# -- time ------------------------------------------------------------------------------------------


def test_the_window_is_looked_at_each_time(stage: Stage) -> None:
    now = time.time()
    token, verifier = stage.seal(CI, now=now), stage.verifier()
    assert verifier.verify(str(CI), token.text, now)
    # A clock that is a few seconds off is no reason; the original had no leeway at all.
    assert verifier.verify(str(CI), token.text, now - 180 - 29)
    assert refused(verifier, str(CI), token.text, now - 180 - 32) == "not_before"
    assert verifier.verify(str(CI), token.text, now + 600 + 29)
    assert refused(verifier, str(CI), token.text, now + 600 + 32) == "not_after"


def test_a_token_of_thirty_days_is_too_long(stage: Stage) -> None:
    """The original compared ``timedelta.seconds``: 30 days and 5 minutes were 5 minutes to it."""
    plain = b'{"not_before": "%s", "not_after": "%s"}'
    now = time.time()
    from_, to = (time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(t)).encode() for t in
                 (now - 300, now + 30 * 86400))  # fmt: skip
    blob = stage.kms.encrypt(stage.services.arn, plain % (from_, to), CI.context(TO)).ciphertext
    from iam_auth_proxy.protocol.service_token import write_token

    assert refused(stage.verifier(), str(CI), write_token(blob)) == "lifetime"


def test_the_configured_lifetime(stage: Stage) -> None:
    token = stage.seal(CI, lifetime=300)
    assert stage.verifier(max_lifetime=480).verify(str(CI), token.text, time.time())
    assert refused(stage.verifier(max_lifetime=479), str(CI), token.text) == "lifetime"
    # What is too long is remembered too, and KMS not asked again.
    verifier = stage.verifier(max_lifetime=60)
    stage.calls()
    for _ in range(3):
        assert refused(verifier, str(CI), token.text) == "lifetime"
    assert stage.calls() == ["Decrypt"]


def test_a_payload_that_is_none(stage: Stage) -> None:
    from iam_auth_proxy.protocol.service_token import write_token

    for plain in (b"{}", b"hello", b'{"not_before": 1, "not_after": 2}'):
        blob = stage.kms.encrypt(stage.services.arn, plain, CI.context(TO)).ciphertext
        assert refused(stage.verifier(), str(CI), write_token(blob)) == "payload"


# -- identity --------------------------------------------------------------------------------------


def test_another_audience_name_or_context(stage: Stage) -> None:
    for token in (
        stage.seal(CI, to="other"),
        stage.seal(Caller("cj")),
        stage.seal(CI, extra={"action": "read"}),
        stage.seal(OLD_CI),
    ):
        assert refused(stage.verifier(), str(CI), token.text) == "context"


def test_what_is_remembered_names_nobody_else() -> None:
    """The original's key was text run together: with one token in the cache
    'adminconfidantX' passed as ``2/Xconfidantservice/admin``; and a version 1 token, for which
    other rules hold, as one of version 2.
    """
    kms = Scripted()
    verifier = kms.verifier(min_version=1)
    assert verifier.verify("ci", "AQICAHg=", NOW).caller == OLD_CI
    assert len(kms.contexts) == 1
    assert refused(verifier, "2/service/ci", "AQICAHg=", NOW) == "context"
    assert kms.contexts[-1]["user_type"] == "service"
    assert verifier.verify("ci", "AQICAHg=", NOW).caller == OLD_CI


def test_a_service_is_no_user_with_one_key_for_both(stage: Stage) -> None:
    """With one key for both ``1/user/NAME`` let the original take a service for a user; and anybody
    who may encrypt without ``user_type`` is any service there.
    """
    token = stage.seal(OLD_CI)
    both = stage.verifier(min_version=1, user_keys=[stage.services.arn])
    assert refused(both, "1/user/ci", token.text) == "username"
    assert refused(both, "ci", token.text) == "key"
    assert stage.verifier(min_version=1).verify("ci", token.text, time.time())


def test_a_key_of_the_other_list(stage: Stage) -> None:
    crossed = stage.seal(CI, stage.users.arn)
    assert refused(stage.verifier(), str(CI), crossed.text) == "key"
    crossed = stage.seal(ALICE, stage.services.arn)
    assert refused(stage.verifier(), str(ALICE), crossed.text) == "key"


def test_what_is_found_cannot_be_changed(stage: Stage) -> None:
    """The original handed out the very dict that it remembered."""
    verified = stage.verifier().verify(str(CI), stage.seal(CI).text, time.time())
    with pytest.raises(FrozenInstanceError):
        verified.window.not_after = 4102444800  # type: ignore[misc]


# -- keys, in every spelling -----------------------------------------------------------------------


def test_every_spelling_of_a_key(stage: Stage) -> None:
    """The original took an alias ARN for a key ARN."""
    token = stage.seal(CI)
    arn = stage.services.arn
    account = arn.split(":")[4]
    for spelled in (arn, arn.rpartition("/")[2], "alias/services",
                    f"arn:aws:kms:eu-west-1:{account}:alias/services"):  # fmt: skip
        assert stage.verifier(service_keys=[spelled]).verify(str(CI), token.text, time.time())


def test_an_alias_that_was_given_to_another_key(stage: Stage) -> None:
    """The original never looked again."""
    verifier, now = stage.verifier(service_keys=["alias/services"]), time.time()
    old = stage.seal(CI, now=now)
    assert verifier.verify(str(CI), old.text, now)
    other = stage.aws.key()
    stage.aws.client("kms", stage.keys).update_alias(
        AliasName="alias/services", TargetKeyId=other.key_id
    )
    later = now + 301
    new = stage.seal(CI, other.arn, now=later)
    assert verifier.verify(str(CI), new.text, later)
    assert refused(verifier, str(CI), old.text, later) == "key"


def test_several_keys_and_which_comes_first(stage: Stage) -> None:
    keys = [stage.aws.key().arn for _ in range(3)] + [stage.services.arn]
    verifier = stage.verifier(service_keys=keys)
    first, second = stage.seal(CI), stage.seal(CI)
    stage.calls()
    assert verifier.verify(str(CI), first.text, time.time()).key_arn == stage.services.arn
    assert stage.calls() == ["Decrypt"] * 4
    assert verifier.verify(str(CI), second.text, time.time())
    assert stage.calls() == ["Decrypt"]


def test_the_key_is_always_named_to_kms(stage: Stage) -> None:
    """The original had KMS open whatever the app's role may open, and looked at the key after."""
    other = stage.aws.key()
    token = stage.seal(CI, other.arn)
    assert refused(stage.verifier(), str(CI), token.text) == "key"
    decrypts = [call for call in stage.aws.calls if call.action == "Decrypt"]
    assert [call.code for call in decrypts] == ["IncorrectKeyException"]


def test_scoped_keys(stage: Stage) -> None:
    sandbox = stage.aws.key("sandbox")
    token = stage.seal(CI, sandbox.arn)
    scoped = {"alias/sandbox": "sandbox"}
    verified = stage.verifier(scoped_keys=scoped).verify(str(CI), token.text, time.time())
    assert verified.account == "sandbox"
    # Without other keys of services they did not count in the original.
    alone = stage.verifier(service_keys=(), scoped_keys=scoped)
    assert alone.verify(str(CI), token.text, time.time()).account == "sandbox"
    # By whatever name a key is listed besides, it stands for its account.
    twice = stage.verifier(service_keys=[sandbox.arn], scoped_keys=scoped)
    assert twice.verify(str(CI), token.text, time.time()).account == "sandbox"
    assert refused(alone, str(ALICE), stage.seal(ALICE, sandbox.arn).text) == "key"
    assert stage.verifier().verify(str(CI), stage.seal(CI).text, time.time()).account == ""


def test_one_key_cannot_stand_for_two_accounts(stage: Stage) -> None:
    """The original reported the name that it had seen first."""
    sandbox = stage.aws.key("sandbox")
    verifier = stage.verifier(scoped_keys={"alias/sandbox": "sandbox", sandbox.arn: "production"})
    with pytest.raises(AwsError, match="several accounts"):
        verifier.verify(str(CI), stage.seal(CI, sandbox.arn).text, time.time())


def test_a_key_that_is_disabled_bites(stage: Stage) -> None:
    """In the original a token lived on to its end, for days where its lifetime was misread."""
    verifier, now = stage.verifier(max_lifetime=7200), time.time()
    token = stage.seal(CI, lifetime=3600, now=now)
    assert verifier.verify(str(CI), token.text, now)
    stage.services.state = "Disabled"
    assert verifier.verify(str(CI), token.text, now + 299)
    assert refused(verifier, str(CI), token.text, now + 301) == "key"
    other = stage.aws.key()
    both = stage.verifier(service_keys=[stage.services.arn, other.arn])
    assert both.verify(str(CI), stage.seal(CI, other.arn).text, time.time())


# -- what bad tokens cost --------------------------------------------------------------------------


def test_a_bad_token_is_asked_about_once_in_a_while(stage: Stage) -> None:
    """The original asked KMS each time, and each of a token's lenient spellings anew."""
    verifier, now = stage.verifier(), time.time()
    bad = stage.seal(CI, to="other").text
    stage.calls()
    for _ in range(5):
        refused(verifier, str(CI), bad, now)
        with pytest.raises(BadServiceToken):
            verifier.known(str(CI), bad, now)
    for spelling in (bad.rstrip("="), bad + "\n", " " + bad, bad + "="):
        refused(verifier, str(CI), spelling, now)
    assert stage.calls() == ["Decrypt"]
    refused(verifier, str(CI), bad, now + 21)
    assert stage.calls() == ["Decrypt"]


def test_the_caches_are_bounded(stage: Stage) -> None:
    kms = Scripted()
    verifier = kms.verifier(cache_size=2)
    tokens = [f"AAA{n}" for n in range(4)]
    for token in tokens:
        verifier.verify("2/service/ci", token, NOW)
    assert len(verifier._opened) == 2
    assert verifier.known("2/service/ci", tokens[3], NOW)
    assert verifier.known("2/service/ci", tokens[0], NOW) is None
    # The original fell over a size of 0.
    none = kms.verifier(cache_size=0)
    before = len(kms.contexts)
    for _ in range(2):
        assert none.verify("2/service/ci", "AAAA", NOW)
    assert len(kms.contexts) == before + 2


def test_a_clock_that_was_set_back_does_not_prolong_what_kms_said() -> None:
    kms = Scripted()
    verifier = kms.verifier()
    verifier.verify("2/service/ci", "AAAA", NOW)
    assert verifier.known("2/service/ci", "AAAA", NOW - 60) is None


def test_many_threads_one_call() -> None:
    kms = Scripted(held=threading.Event())
    verifier = kms.verifier()
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(verifier.verify("2/service/ci", "AAAA", NOW)))
        for _ in range(8)
    ]
    for each in threads:
        each.start()
    assert kms.reached.wait(10)
    assert kms.held is not None
    kms.held.set()
    for each in threads:
        each.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert len(kms.contexts) == 1


def test_threads_and_a_small_cache() -> None:
    """The original's own cache lost keys under threads, and grew past its size."""
    verifier = Scripted().verifier(cache_size=4)
    errors: list[Exception] = []

    def hammer(seed: int) -> None:
        try:
            for n in range(400):
                verifier.verify(f"2/service/s{(seed + n) % 7}", "AAAA", NOW)
        except Exception as error:  # noqa: BLE001  # any at all fails the test
            errors.append(error)

    threads = [threading.Thread(target=hammer, args=(n,)) for n in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert errors == []
    assert len(verifier._opened) <= 4


# -- AWS being away is no refusal ------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        {"code": "ThrottlingException"}, {"status": 500}, {"drop": True}, {"truncate": True},
        {"code": "KMSInternalException", "status": 500},
    ],
    ids=str,
)  # fmt: skip
def test_aws_trouble_is_not_a_bad_token(stage: Stage, fault: dict[str, Any]) -> None:
    """To the original a time-out was a bad token, and Confidant said 403 to it."""
    token, verifier = stage.seal(CI), stage.verifier()
    stage.aws.fault("kms", "Decrypt", times=None, **fault)
    with pytest.raises(AwsUnavailable):
        verifier.verify(str(CI), token.text, time.time())
    stage.aws.clear_faults()
    assert verifier.verify(str(CI), token.text, time.time())


def test_our_own_identity_is_of_no_use(stage: Stage) -> None:
    """Neither a bad token, nor an outage that would pass."""
    token, verifier = stage.seal(CI), stage.verifier()
    stage.aws.fault("kms", "Decrypt", code="UnrecognizedClientException", times=None)
    with pytest.raises(LoginNeeded):
        verifier.verify(str(CI), token.text, time.time())
    stage.aws.clear_faults()
    assert verifier.verify(str(CI), token.text, time.time())


def test_a_key_that_cannot_be_looked_up(stage: Stage) -> None:
    token = stage.seal(CI)
    verifier = stage.verifier(service_keys=["alias/services", "alias/missing"])
    assert verifier.verify(str(CI), token.text, time.time())
    other = stage.seal(CI, stage.aws.key().arn)
    with pytest.raises(AwsError, match="alias/missing") as caught:
        verifier.verify(str(CI), other.text, time.time())
    assert isinstance(caught.value.__cause__, KeyUnusable)
    stage.aws.fault("kms", "DescribeKey", code="ThrottlingException", times=None)
    verifier = stage.verifier(service_keys=["alias/missing"])
    with pytest.raises(AwsUnavailable, match="alias/missing"):
        verifier.verify(str(CI), other.text, time.time())


def test_an_account_that_cannot_be_looked_up(stage: Stage) -> None:
    sandbox = stage.aws.key("sandbox")
    scoped = {"alias/missing": "gone", "alias/sandbox": "sandbox"}
    verifier = stage.verifier(scoped_keys=scoped)
    assert verifier.verify(str(CI), stage.seal(CI).text, time.time()).account == ""
    token = stage.seal(CI, sandbox.arn)
    assert verifier.verify(str(CI), token.text, time.time()).account == "sandbox"


def test_the_apps_role_may_not_decrypt(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = stage.seal(CI)
    poor = stage.aws.user("poor", policies=[allow("kms:DescribeKey")]).keys()
    for name, value in poor.env.items():
        monkeypatch.setenv(name, value)
    stage.kms = make_clients()[0]
    with caplog.at_level(logging.ERROR):
        assert refused(stage.verifier(), str(CI), token.text) == "key"
    assert "AccessDenied" in caplog.text


def test_a_wrong_answer_of_kms_is_noticed() -> None:
    kms = Scripted(answers_with=KEY.replace("1234abcd", "9999abcd"))
    assert refused(kms.verifier(), "2/service/ci", "AAAA", NOW) == "key"


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"max_version": 4}, "max_version"),
        ({"min_version": 0}, "min_version"),
        ({"min_version": 2, "max_version": 1}, "min_version"),
        ({"to": ""}, "to"),
        ({"service_keys": (), "user_keys": ()}, "service_keys"),
        ({"types": frozenset({CallerType.USER}), "user_keys": ()}, "types"),
        ({"scoped_keys": {"alias/a": "x", "alias/b": "x"}}, "scoped_keys"),
        ({"extra": {"user_type": "zzz"}}, "extra"),
        ({"service_keys": ["alias/x"] * (MAX_KEYS + 1)}, "service_keys"),
    ],
)
def test_settings_that_cannot_be(stage: Stage, change: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as error:
        stage.accepts(**change)
    assert [problem.place for problem in error.value.problems] == [place]


def test_a_scoped_key_is_spelled_as_kms_spells_it() -> None:
    """The original's documentation left ``alias/`` out, with which every token was a bad one."""
    with pytest.raises(Exception, match="alias/NAME"):
        parse_key_reference("sandbox-auth-key")


def test_the_hosts_logging_is_its_own(stage: Stage) -> None:
    """The original's calls of ``logging.warning()`` configured it."""
    root = logging.getLogger()
    root.handlers.clear()
    refused(stage.verifier(), str(CI), stage.seal(CI, to="other").text)
    assert root.handlers == []


# -- a KMS that opens everything of version 1, and what it is told to ------------------------------

NOW = 1_800_000_000.0
KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
PAYLOAD = b'{"not_before": "20270115T075700Z", "not_after": "20270115T081000Z"}'


class Scripted:
    """Opens each blob for the first context that it is brought with."""

    def __init__(self, *, held: threading.Event | None = None, answers_with: str = KEY) -> None:
        self.contexts: list[dict[str, str]] = []
        self.owners: dict[bytes, dict[str, str]] = {}
        self.reached = threading.Event()
        self.held = held
        self._answers_with = answers_with

    def verifier(self, *, cache_size: int = 4096, **how: Any) -> Verifier:
        accepts = Accepts(to=TO, service_keys=(parse_key_reference(KEY),), **how)
        return Verifier(accepts, lambda: self, cache_size=cache_size)

    def decrypt(self, key: str, ciphertext: bytes, context: Mapping[str, str]) -> Decrypted:
        self.contexts.append(dict(context))
        self.reached.set()
        if self.held is not None:
            assert self.held.wait(10)
        if (
            context.get("from") == "ci"
            and self.owners.setdefault(ciphertext, dict(context)) != context
        ):
            raise CiphertextInvalid("InvalidCiphertextException")
        if key != KEY:
            raise CiphertextOfOtherKey("IncorrectKeyException")
        return Decrypted(PAYLOAD, self._answers_with)

    def encrypt(self, key: str, plaintext: bytes, context: Mapping[str, str]) -> Encrypted:
        raise NotImplementedError

    def key_arn(self, key: str) -> str:
        raise NotImplementedError


def test_constants_are_what_the_documentation_says() -> None:
    assert (verifiers.OPENED_FOR, verifiers.REFUSED_FOR, verifiers.CACHE_SIZE) == (300, 20, 4096)
