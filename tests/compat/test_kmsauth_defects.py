"""What the original gets wrong: each test here passes with ours, and has to fail with kmsauth.

Those of the defects are named as docs/compat.md names them.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import pkgutil
import threading
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

from tests.compat.conftest import Clock, Stage, both

pytestmark = [
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
    pytest.mark.parametrize("module", both("kmsauth"), indirect=True),
]

TO = "confidant"
REGION = "eu-west-1"
MINUTE = 60


def validator(module: Any, stage: Stage, **how: Any) -> Any:
    given = {"auth_key": [stage.services.arn], "user_auth_key": [stage.users.arn]} | how
    return module.KMSTokenValidator(to_auth_context=TO, region=REGION, **given)


def generator(module: Any, stage: Stage, version: int = 2, **how: Any) -> Any:
    context = {"to": TO, "from": "ci", "user_type": "service"} | how.pop("context", {})
    if version == 1:
        context.pop("user_type", None)
    given = {"auth_key": stage.services.arn, "auth_context": context} | how
    return module.KMSTokenGenerator(region=REGION, token_version=version, **given)


def sealed(stage: Stage, key: str, begins: float = -180, ends: float = 420, **context: str) -> str:
    """A token whose window is so many seconds from now."""
    times = [
        time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time() + at)) for at in (begins, ends)
    ]
    payload = json.dumps({"not_before": times[0], "not_after": times[1]})
    blob = stage.kms.encrypt(key, payload.encode(), {"to": TO} | context).ciphertext
    return base64.b64encode(blob).decode()


def of_ci(stage: Stage, key: str = "", **window: float) -> str:
    context = {"from": "ci", "user_type": "service"}
    return sealed(stage, key or stage.services.arn, **window, **context)


CI = "2/service/ci"


# -- what is accepted and should not be ------------------------------------------------------------


def test_k2_days_count(module: ModuleType, stage: Stage) -> None:
    token = of_ci(stage, ends=30 * 24 * 60 * MINUTE + 2 * MINUTE)
    with pytest.raises(module.TokenValidationError, match="lifetime exceeded"):
        validator(module, stage).decrypt_token(CI, token)


def test_k3_a_version_that_is_no_number(module: ModuleType, stage: Stage) -> None:
    with pytest.raises(module.TokenValidationError):
        validator(module, stage).decrypt_token("x/service/y", "AQID")


@pytest.mark.parametrize("version", ["02", " 2", "+2", "0_2", "\uff12"])
def test_k3b_one_spelling_of_a_version(module: ModuleType, stage: Stage, version: str) -> None:
    with pytest.raises(module.TokenValidationError):
        validator(module, stage).decrypt_token(f"{version}/service/ci", of_ci(stage))


def test_k11_a_remembered_token_under_another_version(module: ModuleType, stage: Stage) -> None:
    token = sealed(stage, stage.services.arn, **{"from": "ci"})
    checked = validator(module, stage)
    assert checked.decrypt_token("ci", token)
    with pytest.raises(module.TokenValidationError):
        checked.decrypt_token(CI, token)


def test_k12_a_service_as_a_user(module: ModuleType, stage: Stage) -> None:
    token = sealed(stage, stage.services.arn, **{"from": "ci"})
    checked = validator(module, stage, user_auth_key=[stage.services.arn])
    for username in ("ci", "1/service/ci"):
        assert checked.decrypt_token(username, token)
    with pytest.raises(module.TokenValidationError):
        checked.decrypt_token("1/user/ci", token)


def test_k14_a_remembered_token_under_another_name(module: ModuleType, stage: Stage) -> None:
    context = {"from": "adminconfidantX", "user_type": "service"}
    token = sealed(stage, stage.services.arn, **context)
    checked = validator(module, stage)
    assert checked.decrypt_token("2/service/adminconfidantX", token)
    with pytest.raises(module.TokenValidationError):
        checked.decrypt_token("2/Xconfidantservice/admin", token)


def test_k16_what_was_given_out_is_not_what_is_remembered(module: ModuleType, stage: Stage) -> None:
    token, checked = of_ci(stage), validator(module, stage)
    checked.decrypt_token(CI, token)["payload"]["not_after"] = "20991231T235959Z"
    assert checked.decrypt_token(CI, token)["payload"]["not_after"] != "20991231T235959Z"


@pytest.mark.parametrize("change", ["{}\n", " {}", "{}=", "{}AAAA=="])
def test_k17_one_spelling_of_a_token(module: ModuleType, stage: Stage, change: str) -> None:
    token, checked = of_ci(stage), validator(module, stage)
    padded = token if token.endswith("=") else None
    if change == "{}AAAA==" and padded is None:
        change = "{}="
    assert checked.decrypt_token(CI, token)
    with pytest.raises(module.TokenValidationError):
        checked.decrypt_token(CI, change.format(token))


def test_k26_a_key_that_is_disabled(module: ModuleType, stage: Stage, clock: Clock) -> None:
    """K26b: the original asks nobody about a token that it remembers."""
    token, checked = of_ci(stage, ends=20 * MINUTE), validator(module, stage)
    assert checked.decrypt_token(CI, token)
    stage.services.state = "Disabled"
    clock.ahead = 301
    with pytest.raises(module.TokenValidationError):
        checked.decrypt_token(CI, token)


# -- what it costs ---------------------------------------------------------------------------------


def test_k18_a_bad_token_is_not_asked_about_again(module: ModuleType, stage: Stage) -> None:
    token, checked = sealed(stage, stage.services.arn, **{"from": "else"}), validator(module, stage)
    with pytest.raises(module.TokenValidationError):
        checked.decrypt_token(CI, token)
    stage.calls()
    for _ in range(5):
        with pytest.raises(module.TokenValidationError):
            checked.decrypt_token(CI, token)
    assert stage.calls() == []


def test_k27_the_key_is_named_to_kms(module: ModuleType, stage: Stage) -> None:
    """Else a server decrypts, for strangers, whatever it may."""
    unlisted = stage.aws.key()
    checked = validator(module, stage)
    asked: list[dict[str, Any]] = []
    ask = checked.kms_client.decrypt
    checked.kms_client.decrypt = lambda **given: asked.append(given) or ask(**given)
    with pytest.raises(module.TokenValidationError, match="wrong KMS key"):
        checked.decrypt_token(CI, of_ci(stage, unlisted.arn))
    assert [given.get("KeyId") for given in asked] == [stage.services.arn]


def test_an_unknown_type_is_not_asked_about(module: ModuleType, stage: Stage) -> None:
    token, checked = of_ci(stage), validator(module, stage)
    stage.calls()
    with pytest.raises(module.TokenValidationError, match="Unsupported user_type"):
        checked.decrypt_token("2/robot/ci", token)
    assert stage.calls() == []


# -- what is refused and should not be -------------------------------------------------------------


def test_k13_version_1_with_a_type_in_its_context(module: ModuleType, stage: Stage) -> None:
    context = {"to": TO, "from": "ci", "user_type": "service"}
    made = module.KMSTokenGenerator(stage.services.arn, context, REGION, token_version=1)
    assert validator(module, stage).decrypt_token(made.get_username(), made.get_token())


def test_k15_reserved_context_is_ignored(module: ModuleType, stage: Stage) -> None:
    token = sealed(stage, stage.services.arn, **{"from": "ci"})
    checked = validator(module, stage, extra_context={"user_type": "zzz", "to": "elsewhere"})
    assert checked.decrypt_token("ci", token)


def test_k21_scoped_keys_alone(module: ModuleType, stage: Stage) -> None:
    checked = validator(module, stage, auth_key=None, scoped_auth_keys={"alias/services": "here"})
    assert checked.decrypt_token(CI, of_ci(stage))["key_alias"] == "alias/services"


def test_k22_the_bare_name_of_an_alias(module: ModuleType, stage: Stage) -> None:
    """As in the original's own example, and in Confidant 1."""
    checked = validator(module, stage, auth_key=[], scoped_auth_keys={"services": "here"})
    assert checked.decrypt_token(CI, of_ci(stage))["key_alias"] == "services"


def test_k23_the_arn_of_an_alias(module: ModuleType, stage: Stage) -> None:
    arn = stage.services.arn.rpartition(":")[0] + ":alias/services"
    checked = validator(module, stage, auth_key=[arn])
    assert checked.decrypt_token(CI, of_ci(stage))["key_alias"] == arn


def test_k25_an_alias_that_was_given_to_another_key(
    module: ModuleType, stage: Stage, clock: Clock
) -> None:
    checked = validator(module, stage, auth_key=["alias/services"])
    assert checked.decrypt_token(CI, of_ci(stage))
    other = stage.aws.key()
    client = stage.aws.client("kms", stage.keys)
    client.update_alias(AliasName="alias/services", TargetKeyId=other.arn.rpartition("/")[2])
    clock.ahead = 301
    assert checked.decrypt_token(CI, of_ci(stage, other.arn, ends=20 * MINUTE))


def test_k31_clocks_that_differ_a_little(module: ModuleType, stage: Stage) -> None:
    assert validator(module, stage).decrypt_token(CI, of_ci(stage, begins=20))


def test_k37_a_cache_of_nothing(module: ModuleType, stage: Stage) -> None:
    checked = validator(module, stage, token_cache_size=0)
    for _ in range(2):
        assert checked.decrypt_token(CI, of_ci(stage))


def test_a_scoped_key_by_two_names(module: ModuleType, stage: Stage) -> None:
    """The name is what an app finds the account by."""
    scoped = {"alias/services": "here"}
    checked = validator(module, stage, scoped_auth_keys=scoped)
    assert checked.decrypt_token(CI, of_ci(stage))["key_alias"] == "alias/services"


# -- generators ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, -1])
def test_k4_versions_that_are_none(module: ModuleType, stage: Stage, version: int) -> None:
    with pytest.raises(module.ConfigurationError):
        generator(module, stage, version=version)


def test_k5_a_name_with_a_slash(module: ModuleType, stage: Stage) -> None:
    with pytest.raises(module.ConfigurationError):
        generator(module, stage, context={"from": "team/app"})


@pytest.mark.parametrize("minutes", [2, 3])
def test_k6_short_tokens_are_alive(module: ModuleType, stage: Stage, minutes: int) -> None:
    made = generator(module, stage, token_lifetime=minutes)
    checked = validator(module, stage, auth_token_max_lifetime=minutes)
    assert checked.decrypt_token(made.get_username(), made.get_token())


def test_k7_tokens_are_bytes(module: ModuleType, stage: Stage, tmp_path: Path) -> None:
    made = generator(module, stage, token_cache_file=str(tmp_path / "token"))
    fresh, cached = made.get_token(), made.get_token()
    assert fresh == cached
    assert isinstance(cached, bytes)


def test_k7_the_cache_file_is_private(module: ModuleType, stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "folder" / "token"
    before = os.umask(0o022)
    try:
        generator(module, stage, token_cache_file=str(file)).get_token()
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (file, file.parent)] == [0o600, 0o700]


@pytest.mark.parametrize(
    "other", [{"auth_key": "alias/users"}, {"token_lifetime": 60}, {"version": 1}], ids=str
)
def test_k8_one_cache_file_for_two(
    module: ModuleType, stage: Stage, tmp_path: Path, other: dict[str, Any]
) -> None:
    file = str(tmp_path / "token")
    context = {"to": TO, "from": "ci", "user_type": "service"}

    def token(version: int = 2, **how: Any) -> str:
        given = {"auth_key": "alias/services", "auth_context": context} | how
        made = module.KMSTokenGenerator(
            region=REGION, token_version=version, token_cache_file=file, **given
        )
        found = made.get_token()
        return found if isinstance(found, str) else found.decode()

    assert token() != token(**other)


def test_k9_a_cache_file_in_the_working_folder(
    module: ModuleType, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generator(module, stage, token_cache_file="token").get_token()
    assert (tmp_path / "token").is_file()


def test_k9b_short_tokens_are_cached(module: ModuleType, stage: Stage, tmp_path: Path) -> None:
    made = generator(module, stage, token_cache_file=str(tmp_path / "token"), token_lifetime=6)
    made.get_token()
    stage.calls()
    made.get_token()
    assert stage.calls() == []


def test_a_cache_file_that_somebody_else_may_write(
    module: ModuleType, stage: Stage, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    made = generator(module, stage, token_cache_file=str(file))
    made.get_token()
    file.chmod(0o666)
    stage.calls()
    made.get_token()
    assert stage.calls() == ["Encrypt"]
    assert file.stat().st_mode & 0o777 == 0o600


# -- around it -------------------------------------------------------------------------------------


def test_k19_clients_with_other_timeouts(module: ModuleType, stage: Stage) -> None:
    first, second = (
        module.services.get_boto_client("kms", region=REGION, read_timeout=seconds)
        for seconds in (1, 30)
    )
    assert second.meta.config.read_timeout == 30
    assert first.meta.config.read_timeout == 1


def test_k20_clients_with_other_secrets(module: ModuleType, stage: Stage) -> None:
    def signs_with(secret: str, token: str | None) -> tuple[str, str | None]:
        client = module.services.get_boto_client("kms", REGION, "AKIDEXAMPLE", secret, token)
        found = client._request_signer._credentials
        return found.secret_key, found.token

    for asked in (("S1", "T1"), ("S2", None), ("S3", None)):
        assert signs_with(*asked) == asked
    # Nothing of a session, which ends, and no secret is left behind.
    assert len(module.services.CLIENT_CACHE) == 2
    assert "S2" not in repr(module.services.CLIENT_CACHE)


@pytest.mark.parametrize("fault", [ReadTimeoutError, ConnectionClosedError])
def test_k28_no_answer_is_no_bad_token(module: ModuleType, stage: Stage, fault: Any) -> None:
    checked = validator(module, stage)

    def fails(**asked: Any) -> Any:
        raise fault(endpoint_url="https://kms.example")

    checked.kms_client.decrypt = fails
    with pytest.raises(module.TokenValidationError, match="Failure connecting"):
        checked.decrypt_token(CI, of_ci(stage))


def test_k29_the_message_names_the_setting(module: ModuleType) -> None:
    with pytest.raises(module.ConfigurationError, match=r"than self\.maximum_token_version"):
        module.KMSTokenValidator(
            None, None, TO, REGION, minimum_token_version=2, maximum_token_version=1
        )


def test_k34_the_cache_and_threads(module: ModuleType) -> None:
    """The original takes an entry out to put it in front again: meanwhile it is not there."""
    cache = import_module(f"{module.__name__}.utils.lru").LRUCache(2)
    missed: list[KeyError] = []

    class Key:
        asked = 0

        def __hash__(self) -> int:
            Key.asked += 1
            if Key.asked == 4:  # the first look-up has begun
                other.start()
                other.join(0.2)
            return 1

    def look() -> None:
        try:
            cache[key]
        except KeyError as error:
            missed.append(error)

    key = Key()
    other = threading.Thread(target=look)
    cache[key] = "value"
    cache["another"] = "that was used last"
    Key.asked = 2
    assert cache[key] == "value"
    other.join(10)
    assert not other.is_alive()
    assert missed == []


def test_k35_the_hosts_logging_is_its_own(
    module: ModuleType, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging, "lastResort", None)
    with pytest.raises(module.TokenValidationError):
        validator(module, stage).decrypt_token(CI, "AQID")
    assert logging.root.handlers == []


def test_k36_times_know_their_zone(module: ModuleType) -> None:
    """``utcnow`` is to go: it warns from Python 3.12 on."""
    assert "utcnow" not in _source(module)


def test_nothing_of_botocores_own(module: ModuleType) -> None:
    assert "botocore.vendored" not in _source(module)


def _source(module: ModuleType) -> str:
    inner = pkgutil.walk_packages(module.__path__, module.__name__ + ".")
    modules = [module, *(import_module(each.name) for each in inner)]
    return "".join(Path(str(each.__file__)).read_text("utf-8") for each in modules)
