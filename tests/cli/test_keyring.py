"""``keyring …``: what is typed, what is printed, and how it ends."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iam_auth_proxy.keys.rotation import RingStore, open_ring
from iam_auth_proxy.local_aws import LocalAws
from iam_auth_proxy.protocol import session
from iam_auth_proxy.protocol.identity import Kind
from iam_auth_proxy.protocol.keyring import KeyRing
from iam_auth_proxy.protocol.ring_record import dumps
from iam_auth_proxy.protocol.strict import encode_base64
from tests.cli.conftest import Home

SECRET = "fJ2n8xKq0VbTz4LrYw7PmC3sHd6GkE9a"
DATE = r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"


@pytest.fixture
def aws(local_aws: LocalAws, monkeypatch: pytest.MonkeyPatch, home: Home) -> LocalAws:
    for name, value in {**local_aws.env, **local_aws.root().env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    return local_aws


@pytest.fixture
def key(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> str:
    arn = aws.key("alias/rings").arn
    monkeypatch.setenv("IAM_AUTH_PROXY_KMS_KEY", arn)
    return arn


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"file:{tmp_path}/rings/web"


def listed(home: Home, place: str) -> Any:
    return json.loads(home.run("keyring", "list", place, "--json")[0])


def opened(place: str, key: str) -> RingStore:
    return open_ring(place, [key])


def test_its_life(home: Home, key: str, place: str) -> None:
    data, words = home.run("keyring", "new", place)
    assert data == ""
    first, second, third = words.splitlines()
    assert re.fullmatch(rf"{place}: [0-9a-f]{{12}} signs from now on", first)
    assert second.endswith(f"IAM_AUTH_KEYRING={place}")
    assert "every 30 days" in third
    old = first.split()[1]

    _, words = home.run("keyring", "rotate", place, "--if-due")
    assert re.fullmatch(rf"{place}: not due before {DATE}\n", words)
    _, words = home.run("keyring", "rotate", place)
    published = re.fullmatch(
        rf"{place}: ([0-9a-f]{{12}}) signs from {DATE} on\n"
        rf"Until then {old} signs, which verifies until {DATE}\n",
        words,
    )
    assert published is not None
    assert "a rotation is under way" in home.run("keyring", "rotate", place)[1]

    data, words = home.run("keyring", "list", place)
    assert re.fullmatch(rf"{place}: the next rotation is on {DATE}\n", words)
    rows = [line.split() for line in data.splitlines()]
    assert [row[:2] for row in rows[1:]] == [[old, "primary"], [published[1], "pending"]]
    facts = listed(home, place)
    assert facts["version"] == 2
    assert facts["policy"]["propagation"] == 10 + 30 + 10 + 60 + 3600
    assert facts["versions"][1]["activates"] - facts["versions"][1]["created"] in {3710, 3711}

    _, words = home.run("keyring", "disable", place, old)
    assert "in every app within 30 seconds. Who signed in with it signs in again." in words
    assert f"{published[1]} signs from now on" in words
    states = {each["id"]: each["state"] for each in listed(home, place)["versions"]}
    assert states == {old: "disabled", published[1]: "primary"}
    _, words = home.run("keyring", "disable", place, old, status=1)
    assert "gone already" in words
    assert f"keyring list {place}" in words
    assert "[no-such-key]" in words
    home.run("keyring", "rotate", place)
    (new,) = [each["id"] for each in listed(home, place)["versions"] if each["state"] == "pending"]
    assert f"{published[1]} signs from now on" in home.run("keyring", "disable", place, new)[1]


def test_no_key_is_ever_printed(
    home: Home, key: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", SECRET)
    printed: list[str] = []
    for args in (
        ["new", place],
        ["rotate", place],
        ["import", place, "--from-env", "SECRET_KEY"],
        ["list", place],
        ["list", place, "--json"],
    ):
        printed += home.run("keyring", *args)
    ring = opened(place, key).load().ring
    for version in ring.versions:
        assert version.material is not None
        for spelling in (
            encode_base64(version.material),
            encode_base64(version.material, urlsafe=True),
            version.material.hex(),
            SECRET,
        ):
            assert spelling not in "".join(printed)
        assert encode_base64(version.material).encode() in dumps(ring)


def test_the_policy_is_changed(home: Home, key: str, place: str) -> None:
    home.run("keyring", "new", place)
    _, words = home.run("keyring", "set", place, "--max-session", "1d12h", "--poll", "1m")
    assert words == (
        f"{place}: --rotate-every 30 days, --max-session 36 hours, --poll 60 seconds, "
        "--clock-skew 60 seconds, --read-time 10 seconds, --outage 60 minutes\n"
    )
    policy = listed(home, place)["policy"]
    assert (policy["max_session"], policy["poll"], policy["skew"]) == (36 * 3600, 60, 60)
    _, words = home.run("keyring", "set", place, "--rotate-every", "1h", status=2)
    assert "--rotate-every is 3600 s" in words
    assert "what to change" in home.run("keyring", "set", place, status=2)[1]
    assert listed(home, place)["version"] == 2


def test_what_was_signed_before_is_accepted(
    home: Home, key: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in = session.Session(
        id="a", origin="http://app.test", arn="arn:aws:iam::111122223333:user/ann", user_id="AIDA",
        account="111122223333", partition="aws", kind=Kind.USER, proof="signed-identity",
        issued=1000, expires=10_000,
    )  # fmt: skip
    cookie = session.seal(signed_in, KeyRing.from_secret(SECRET), 1000)
    home.run("keyring", "new", place)
    (tmp_path / "secret").write_text(SECRET + "\n")
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("KMS_SALT", "a static salt")
    _, words = home.run("keyring", "import", place, "--from-env", "SECRET_KEY,KMS_SALT")
    assert re.fullmatch(
        rf"{place}: {cookie[:12]} is accepted until {DATE}\n"
        rf"{place}: the salt is accepted until {DATE}\n",
        words,
    )
    facts = listed(home, place)
    assert [each["state"] for each in facts["versions"]] == ["primary", "verify-only"]
    assert "(salt)" in home.run("keyring", "list", place)[0]
    created = facts["versions"][0]["created"]
    ring = opened(place, key).load().ring.at(created)
    found = session.open_(cookie, ring, origin="http://app.test", now=1001)
    assert found == replace(signed_in, renewed=1000)
    assert ring.salts == ("a static salt",)
    assert ring.primary.id != cookie[:12]
    # Until servers that use it are gone, and their sessions are over.
    until = facts["versions"][1]["retires"]
    assert 0 <= until - created - 7 * 86_400 - facts["policy"]["overlap"] < 600


@pytest.mark.parametrize(
    ("variables", "names", "complaint"),
    [
        ({}, "SECRET_KEY", "SECRET_KEY: is not set"),
        ({"SECRET_KEY": "changeme"}, "SECRET_KEY", "looks like a placeholder"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY", "has 5 characters"),
        ({"PATH_SALT": "x"}, "PATH_SALT", "is none of"),
        ({"SECRET_KEY": SECRET}, "SECRET_KEY,", "is none of"),
        ({"KMS_SALT": "\u00e4"}, "KMS_SALT", "printable ASCII"),
        ({"SECRET_KEY": SECRET, "SECRET_KEY_FILE": "/x"}, "SECRET_KEY", "set one of them"),
        ({"SECRET_KEY_FILE": "/does/not/exist"}, "SECRET_KEY", "cannot be read"),
    ],
)
def test_what_is_not_imported(
    home: Home,
    key: str,
    place: str,
    variables: dict[str, str],
    names: str,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home.run("keyring", "new", place)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    _, words = home.run("keyring", "import", place, "--from-env", names, status=2)
    assert complaint in words
    assert "Make a good one" not in words
    assert "short" not in words
    assert SECRET not in words
    assert listed(home, place)["version"] == 1


def test_who_is_second_reads_again_and_says_so(
    home: Home, key: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.run("keyring", "new", place)
    put = RingStore._put

    def racing(self: RingStore, *args: Any) -> Any:
        monkeypatch.setattr(RingStore, "_put", put)
        opened(place, key).rotate(args[-1])
        return put(self, *args)

    monkeypatch.setattr(RingStore, "_put", racing)
    _, words = home.run("keyring", "rotate", place)
    assert words.startswith("Somebody else changed the ring meanwhile; it was read again.\n")
    assert "a rotation is under way" in words
    assert listed(home, place)["version"] == 2


def test_in_s3(home: Home, key: str, aws: LocalAws) -> None:
    aws.client("s3", aws.root()).create_bucket(
        Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    home.run("keyring", "new", "s3://bucket/web/ring", "--rotate-every", "1d12h", "--quiet")
    assert listed(home, "s3://bucket/web/ring")["policy"]["rotate_every"] == 36 * 3600
    _, words = home.run("keyring", "rotate", "s3://bucket/web/ring", "--quiet")
    assert words == ""


@pytest.mark.parametrize("spelled", ["{}/rings/web", "file:{}/rings/../rings/web", "rings/web"])
def test_a_place_is_said_in_one_way(
    home: Home, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    """What is printed is put into the settings of an app, which runs elsewhere."""
    monkeypatch.chdir(tmp_path)
    _, words = home.run("keyring", "new", spelled.format(tmp_path))
    place = f"file:{tmp_path.resolve()}/rings/web"
    assert words.startswith(f"{place}: ")
    assert f"IAM_AUTH_KEYRING={place}\n" in words
    assert f"--quiet {place} " in words
    assert listed(home, spelled.format(tmp_path))["place"] == place


def test_honest_statuses(
    home: Home, key: str, place: str, aws: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    for args in (["list", place], ["rotate", place], ["disable", place, "ab"]):
        _, words = home.run("keyring", *args, status=1)
        assert f"Make it: iam-auth-proxy keyring new {place}" in words
    home.run("keyring", "new", place)
    _, words = home.run("keyring", "new", place, status=1)
    assert "[version-conflict]" in words
    aws.fault("kms", "Encrypt", code="ThrottlingException", times=None)
    assert "[aws-unavailable]" in home.run("keyring", "rotate", place, status=6)[1]
    aws.clear_faults()
    assert listed(home, place)["version"] == 1
    for args, complaint in (
        (["frobnicate"], "frobnicate"),
        (["list"], "PLACE is missing"),
        (["disable", place], "ID... is missing"),
        (["list", "ring"], "a key ring is s3://BUCKET/PREFIX/NAME"),
        (["list", "s3://bucket"], "a key ring is s3://BUCKET/PREFIX/NAME"),
        (["list", "s3://B/x"], "s3://B/x: 'B' is no bucket's name"),
        (["list", place + "/../x y"], "no name of a secret"),
        (["list", place, "--kms-key", "nonsense"], "nonsense"),
        (["new", place, "--rotate-every", "x"], "is not a duration"),
        (["new", place, "--rotate-every", "xd"], "is not a duration"),
        (["new", place, "--poll", "1.5s"], "is not a duration"),
        (["new", place, "--rotate-every", "30m"], "--rotate-every is 1800 s"),
        (["new", place, "--poll", "20000d"], "--poll is out of bounds"),
        (["import", place], "NAMES is missing"),
    ):
        _, words = home.run("keyring", *args, status=2)
        assert complaint in words
        assert "bug" not in words
    monkeypatch.delenv("IAM_AUTH_PROXY_KMS_KEY")
    assert "--kms-key" in home.run("keyring", "list", place, status=2)[1]


def test_another_kms_key(home: Home, key: str, place: str, aws: LocalAws) -> None:
    home.run("keyring", "new", place)
    before, new = listed(home, place), aws.key().arn
    store = place.removesuffix("/web")
    home.run("secret", "rewrap", "web", "--store", store, "--kms-key", new, "--kms-key", key)
    home.run("keyring", "list", place, status=1)
    data, _ = home.run("keyring", "list", place, "--kms-key", new, "--json")
    assert json.loads(data) == before


def test_a_secret_that_is_no_ring(home: Home, key: str, place: str, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("hunter2")
    store = place.removesuffix("/web")
    home.run("secret", "put", "web", str(tmp_path / "value"), "--store", store)
    _, words = home.run("keyring", "list", place, status=1)
    assert "is not a key ring" in words
    assert "hunter2" not in words
