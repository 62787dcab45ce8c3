"""Every setting from code and from the environment, and all problems at once."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.errors import ConfigError
from iam_auth_proxy.names import parse_origin
from iam_auth_proxy.protocol.keyring import SECRET_COMMAND
from iam_auth_proxy.protocol.proof import ProofKind
from iam_auth_proxy.server.settings import SETTINGS, load
from tests.server.conftest import ACCOUNT, KEY, ORIGIN, SECRET

ORIGINAL = {
    "AWS_ACCOUNT_ID": ACCOUNT,
    "SECRET_KEY": SECRET,
    "KMS_KEY_ID": KEY,
    "KMS_SALT": "pepper",
}
SIGNED, SESSION = ProofKind.SIGNED_IDENTITY, ProofKind.SESSION_CREDENTIALS
CODE = {"kms_key": KEY, "secret_key": SECRET, "origins": [ORIGIN], "legacy": True}


def problems(values: dict[str, object], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(values, environ)
    return str(caught.value)


def test_the_originals_variables_are_enough() -> None:
    found = load({}, ORIGINAL | {"AWS_DEFAULT_REGION": "eu-west-1", "UNRELATED": "1"})
    assert (found.accounts, str(found.kms_key), found.salt) == ((ACCOUNT,), KEY, "pepper")
    assert (found.legacy, found.origins, found.region) == (True, (), "eu-west-1")
    assert (found.max_session, found.idle, found.path) == (43200, 3600, "/auth")


def test_code_has_to_say_origins_and_takes_the_signed_identity_alone() -> None:
    assert load(CODE).origins == (parse_origin(ORIGIN),)
    said = problems({"kms_key": KEY, "secret_key": SECRET})
    assert said == "origins=: is needed: what browsers call this app"
    found = load({"kms_key": KEY, "secret_key": SECRET, "origins": [ORIGIN]})
    assert (found.proofs, found.legacy) == ({SIGNED}, False)
    assert found.replay == "memory"


def test_an_environment_takes_what_the_seed_takes_and_more() -> None:
    for variables in ({}, {"IAM_AUTH_ORIGINS": ORIGIN}):
        found = load({}, ORIGINAL | variables)
        assert (found.proofs, found.legacy) == ({SIGNED, SESSION}, True)


def test_whoever_names_the_proofs_has_named_them_all() -> None:
    """Session credentials must not stay possible by GET where nobody asked for them."""
    named = ORIGINAL | {"IAM_AUTH_ORIGINS": ORIGIN, "IAM_AUTH_PROOFS": "signed-identity"}
    assert (load({}, named).proofs, load({}, named).legacy) == ({SIGNED}, False)
    assert load({}, named | {"IAM_AUTH_LEGACY": "true"}).legacy is True
    assert "IAM_AUTH_PROOFS: " in problems({}, ORIGINAL | {"IAM_AUTH_PROOFS": ""})


@pytest.mark.parametrize("variables", [{"IAM_AUTH_LEGACY": "false"}, {"IAM_AUTH_PROOFS": SIGNED}])
def test_without_origins_legacy_is_the_only_way(variables: dict[str, str]) -> None:
    said = problems({}, ORIGINAL | variables)
    assert said.startswith("IAM_AUTH_ORIGINS: is needed")
    assert "legacy sign-ins are the only ones" in said


def test_all_problems_come_at_once_each_with_its_place() -> None:
    said = problems({}, {"SECRET_KEY": "x", "IAM_AUTH_ORIGINS": "app.test", "IAM_AUTH_IDLE": "1 h"})
    assert said.splitlines() == [
        "SECRET_KEY: has 1 characters; it needs at least 32. Make a good one with: "
        + SECRET_COMMAND,
        "IAM_AUTH_ORIGINS: an origin is http://HOST[:PORT] or https://HOST[:PORT]",
        "IAM_AUTH_IDLE: not a duration such as 1h, 90m or 1h30m",
        "IAM_AUTH_KMS_KEY or KMS_KEY_ID: is needed: the KMS key that proofs are for",
    ]


@pytest.mark.parametrize(
    "weak", ["", "changeme" * 5, "x" * 64, "<long random string>", "abc123" * 8]
)
def test_weak_secrets_are_refused_with_the_command_that_makes_a_good_one(weak: str) -> None:
    said = problems({}, ORIGINAL | {"SECRET_KEY": weak})
    assert SECRET_COMMAND in said
    assert not weak or weak not in said


def test_our_own_name_comes_before_the_seeds() -> None:
    theirs = ORIGINAL | {"SECRET_KEY": "django's", "IAM_AUTH_SECRET_KEY": SECRET[::-1]}
    assert load({}, theirs).secret_key == SECRET[::-1]


def test_arguments_come_before_variables() -> None:
    assert load({"salt": "mine", "path": None}, ORIGINAL).salt == "mine"


def test_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    environ = ORIGINAL | {"SECRET_KEY_FILE": str(secret)}
    assert "SECRET_KEY_FILE is set too" in problems({}, environ)
    del environ["SECRET_KEY"]
    assert load({}, environ).secret_key == SECRET
    said = problems({}, environ | {"SECRET_KEY_FILE": str(tmp_path / "none")})
    assert said.startswith("SECRET_KEY_FILE: cannot be read")
    assert "is needed" not in said
    secret.write_bytes(b"\xff" * 40)
    assert "cannot be read" in problems({}, environ)


def test_an_empty_variable_is_none() -> None:
    assert load({}, ORIGINAL | {"KMS_SALT": "", "IAM_AUTH_PUBLIC": ""}).salt == ""


def test_an_argument_that_is_no_setting() -> None:
    with pytest.raises(TypeError, match="'origin'; did you mean origins"):
        load({"origin": ORIGIN})


def test_a_mistyped_variable_is_told() -> None:
    told: list[str] = []
    more = {
        "IAM_AUTH_ORIGIN": "x",
        "IAM_AUTH_PROXY_BIND": ":1",
        "IAM_AUTH_SERVICE_HOST": "10.0.0.1",
    }
    load({}, ORIGINAL | more, warn=told.append)
    assert told == ["IAM_AUTH_ORIGIN is not a setting; did you mean IAM_AUTH_ORIGINS?"]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("accounts", f"{ACCOUNT}, 222222222222", (ACCOUNT, "222222222222")),
        ("origins", "http://a.test https://b.test:8443",
         (parse_origin("http://a.test"), parse_origin("https://b.test:8443"))),
        ("legacy", "TRUE", True),
        ("proofs", "session-credentials, signed-identity", {SIGNED, SESSION}),
        ("replay", "file:/var/lib/app/replay.db", "file:/var/lib/app/replay.db"),
        ("max_session", "1h30m", 5400.0),
        ("sessions_issued_after", "1800000000", 1_800_000_000.0),
        ("sessions_issued_after", "2027-01-15T08:00:00Z", 1_800_000_000.0),
        ("trusted_proxies", "10.0.0.0/8 unix ::1",
         (ipaddress.ip_network("10.0.0.0/8"), "unix", ipaddress.ip_network("::1"))),
        ("help_url", "https://wiki.test/a?b=c", "https://wiki.test/a?b=c"),
        ("cookie_name", "sid", "sid"),
        ("path", "/iam/auth", "/iam/auth"),
        ("region", "us-gov-west-1", "us-gov-west-1"),
    ],
)  # fmt: skip
def test_how_each_is_written(name: str, text: str, value: object) -> None:
    found = load({}, ORIGINAL | {"IAM_AUTH_" + name.upper(): text})
    assert getattr(found, name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accounts", "12345"), ("accounts", "１１１１２２２２３３３３"), ("accounts", [1]),
        ("accounts", 5),
        ("origins", "http://app.test/"), ("origins", "http://app.test."), ("origins", "*"),
        ("legacy", "maybe"), ("legacy", 1),
        ("proofs", "password"), ("proofs", []), ("proofs", "signed-identity none"), ("proofs", 7),
        ("replay", "file:replay.db"), ("replay", "redis://x"), ("replay", 7), ("replay", "file:"),
        ("idle", "10s"), ("idle", "0h"), ("idle", True), ("max_session", "1000h"), ("idle", "13h"),
        ("sessions_issued_after", "yesterday"), ("sessions_issued_after", "2027-01-15T08:00:00"),
        ("trusted_proxies", "10.0.0.1/8"), ("trusted_proxies", "*"),
        ("help_url", "javascript:alert(1)"), ("help_url", 'https://a/"onload=1'),
        ("help_url", "/help"),
        ("cookie_name", "__Host-x"), ("cookie_name", "iam_auth_nonce"),
        ("cookie_name", "IAM_auth_nonce-8443"), ("cookie_name", "a b"), ("cookie_name", "a;b"),
        ("path", "auth"), ("path", "/"), ("path", "/auth/"), ("path", "//x"), ("path", "/a/../b"),
        ("region", "mars"), ("salt", "\n"), ("salt", "x" * 1025),
        ("kms_key", "alias/"), ("kms_key", "arn:aws:kms:eu-west-1:1:key/x"), ("kms_key", 7),
        ("public", "healthz"), ("public", "/*/x"), ("public", 7), ("public", [7]),
        ("allow", "user:*"), ("allow", []), ("allow", 7), ("allow", [7]),
    ],
)  # fmt: skip
def test_refused(name: str, value: object) -> None:
    assert name in problems(CODE | {name: value})


def test_python_values() -> None:
    given = CODE | {
        "max_session": datetime.timedelta(hours=2),
        "idle": 600,
        "sessions_issued_after": datetime.datetime(2027, 1, 15, 8, tzinfo=datetime.UTC),
        "origins": [parse_origin(ORIGIN)],
    }
    found = load(given)
    assert (found.max_session, found.idle) == (7200.0, 600.0)
    assert found.sessions_issued_after == 1_800_000_000.0


def test_a_short_maximum_shortens_the_default_idle_time() -> None:
    assert load(CODE | {"max_session": "10m"}).idle == 600


def test_secrets_are_not_in_the_repr() -> None:
    assert SECRET not in repr(load(CODE))


@given(st.sampled_from(SETTINGS), st.text(max_size=30))
def test_whatever_a_variable_holds_is_taken_or_named(setting: object, text: str) -> None:
    name = setting.variables[0]  # type: ignore[attr-defined]  # a Setting
    try:
        load({}, ORIGINAL | {name: text})
    except ConfigError as error:
        assert all(problem.place == name for problem in error.problems)  # noqa: PT017 - all or none


RING = "s3://bucket/prefix/ring"


class TestKeyRing:
    """One of a secret key and a key ring, and never both."""

    def test_is_instead_of_a_secret_key(self) -> None:
        del (environ := dict(ORIGINAL))["SECRET_KEY"]
        found = load({}, environ | {"IAM_AUTH_KEYRING": RING, "IAM_AUTH_KEYRING_POLL": "10s"})
        assert (found.keyring, found.secret_key) == (RING, "")
        assert (found.keyring_kms_keys, found.keyring_poll) == ((), 10.0)
        found = load(CODE | {"secret_key": None, "keyring": RING, "keyring_kms_keys": [KEY]})
        assert [str(key) for key in found.keyring_kms_keys] == [KEY]
        assert found.keyring_poll is None

    def test_both_are_refused_with_the_way_from_one_to_the_other(self) -> None:
        said = problems({}, ORIGINAL | {"IAM_AUTH_KEYRING": RING})
        assert said == (
            "IAM_AUTH_KEYRING: IAM_AUTH_SECRET_KEY or SECRET_KEY is set too; set one of them. To "
            "move to the ring and log nobody out: iam-auth-proxy keyring import "
            f"{RING} --from-env SECRET_KEY,KMS_SALT --kms-key ARN"
        )

    def test_neither_is_refused_with_how_to_make_either(self) -> None:
        said = problems(CODE | {"secret_key": None})
        assert said.startswith(
            f"secret_key=: is needed, or keyring=. Make one with: {SECRET_COMMAND}"
        )
        assert "iam-auth-proxy keyring new s3://BUCKET/PREFIX/NAME --kms-key ARN" in said

    def test_one_that_is_there_already_is_enough(self) -> None:
        without = {name: value for name, value in CODE.items() if name != "secret_key"}
        assert load(without, rings=True).keyring == ""
        with pytest.raises(ConfigError, match="secret_key=: is set, and a key ring is given"):
            load(CODE, rings=True)

    @pytest.mark.parametrize(
        "place",
        ["", "ring", "/ring", "s3://bucket", "s3://B/ring", "file:ring/", "http://x/ring",
         "s3://bucket/a b", "file:"],
    )  # fmt: skip
    def test_a_place_that_is_none_is_refused(self, place: str) -> None:
        said = problems(CODE | {"secret_key": None, "keyring": place})
        assert said.startswith("keyring=: ")

    @pytest.mark.parametrize("poll", ["0", "0.5s", "2h", "-1s", True])
    def test_how_often_is_bounded(self, poll: object) -> None:
        said = problems(CODE | {"secret_key": None, "keyring": RING, "keyring_poll": poll})
        assert said.startswith("keyring_poll=: ")

    def test_what_says_nothing_without_a_ring_is_a_mistake(self) -> None:
        said = problems({}, ORIGINAL | {"IAM_AUTH_KEYRING_KMS_KEYS": KEY})
        assert said == "IAM_AUTH_KEYRING_KMS_KEYS: says nothing without IAM_AUTH_KEYRING"

    def test_a_ring_that_cannot_be_read_from_is_no_second_problem(self) -> None:
        said = problems(CODE | {"secret_key": None, "keyring": "x", "keyring_poll": 10})
        assert len(said.splitlines()) == 1
